// A Node service as any team would write it: reads our records through the registry.
// One JSON request on stdin, one JSON answer on stdout.
'use strict'

const { SchemaRegistry } = require('@kafkajs/confluent-schema-registry')
const { text } = require('node:stream/consumers')

const shown = (_, value) =>
  value && value.type === 'Buffer' ? { bytes: Buffer.from(value.data).toString('base64') } : value

async function main () {
  const { url, payloads, ours } = JSON.parse(await text(process.stdin))
  const registry = new SchemaRegistry({ host: url, auth: { username: '', password: '' } })

  const decoded = await Promise.all(payloads.map(payload => registry.decode(Buffer.from(payload, 'base64'))))
  const encoded = await Promise.all(decoded.map((value, index) =>
    registry.encode(Buffer.from(payloads[index], 'base64').readUInt32BE(1), value)))

  const latest = await registry.getLatestSchemaId(ours.subject)
  const unknown = await registry.getSchema(999).then(() => null, error => ({ status: error.status, message: error.message }))

  process.stdout.write(JSON.stringify({
    decoded,
    encoded: encoded.map(bytes => bytes.toString('base64')),
    latest,
    unknown
  }, shown))
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
