// A Node service as any team would write it: reads our records through the registry, and registers a schema of its own.
// One JSON request on stdin, one JSON answer on stdout.
'use strict'

const { SchemaRegistry, SchemaType, COMPATIBILITY } = require('@kafkajs/confluent-schema-registry')
const { text } = require('node:stream/consumers')

const shown = (_, value) =>
  value && value.type === 'Buffer' ? { bytes: Buffer.from(value.data).toString('base64') } : value

async function main () {
  const { url, payloads, ours, foreign } = JSON.parse(await text(process.stdin))
  const registry = new SchemaRegistry({ host: url, auth: { username: '', password: '' } })

  const decoded = await Promise.all(payloads.map(payload => registry.decode(Buffer.from(payload, 'base64'))))
  const encoded = await Promise.all(decoded.map((value, index) =>
    registry.encode(Buffer.from(payloads[index], 'base64').readUInt32BE(1), value)))

  const schema = { type: SchemaType.AVRO, schema: ours.schema }
  const latest = await registry.getLatestSchemaId(ours.subject)
  const lookedUp = await registry.getRegistryIdBySchema(ours.subject, schema)
  const same = await registry.register(schema, { subject: ours.subject, compatibility: COMPATIBILITY.FULL_TRANSITIVE })

  const theirs = { type: SchemaType.AVRO, schema: foreign.schema }
  const registered = await registry.register(theirs, { subject: foreign.subject })
  const again = await registry.register(theirs, { subject: foreign.subject })
  const refused = await registry
    .register({ type: SchemaType.AVRO, schema: foreign.incompatible }, { subject: foreign.subject })
    .then(() => null, error => ({ status: error.status, message: error.message }))
  const unknown = await registry.getSchema(999).then(() => null, error => ({ status: error.status, message: error.message }))

  process.stdout.write(JSON.stringify({
    decoded,
    encoded: encoded.map(bytes => bytes.toString('base64')),
    ids: { latest, lookedUp, same: same.id, registered: registered.id, again: again.id },
    refused,
    unknown
  }, shown))
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
