// Keeps a table of fills: reads drx.prescriptions.v1 from its start, and applies each event once.
import { readFile } from 'node:fs/promises'
import { SchemaRegistry, SchemaType } from '@kafkajs/confluent-schema-registry'
import { Consumer } from '@platformatic/kafka'
import avro from 'avsc'
import pg from 'pg'

// Without these a quantity is a Buffer, a date a number of days and a timestamp a number of microseconds.
class Decimal extends avro.types.LogicalType {
  constructor(schema, options) {
    super(schema, options)
    this.scale = schema.scale
  }

  _fromValue(bytes) {
    const unscaled = bytes.length ? BigInt.asIntN(bytes.length * 8, BigInt(`0x${bytes.toString('hex')}`)) : 0n
    const digits = String(unscaled < 0n ? -unscaled : unscaled).padStart(this.scale + 1, '0')
    const point = digits.length - this.scale
    return `${unscaled < 0n ? '-' : ''}${digits.slice(0, point)}.${digits.slice(point)}` // a Number would round it
  }
}

class Day extends avro.types.LogicalType {
  _fromValue(days) {
    return new Date(days * 86_400_000).toISOString().slice(0, 10)
  }
}

class Instant extends avro.types.LogicalType {
  _fromValue(micros) {
    const seconds = Math.floor(micros / 1_000_000) // a Date has milliseconds only
    const rest = String(micros - seconds * 1_000_000).padStart(6, '0')
    return new Date(seconds * 1000).toISOString().replace('000Z', `${rest}Z`)
  }
}

const stack = JSON.parse(await readFile('stack/endpoints.json'))
const registry = new SchemaRegistry(
  { host: stack.registry },
  { [SchemaType.AVRO]: { logicalTypes: { decimal: Decimal, date: Day, 'timestamp-micros': Instant } } },
)
const database = new pg.Client({ connectionString: stack.postgres })
await database.connect()
await database.query(`create table if not exists fills_node (source text, id text, prescription_id text,
  fill_number int, status text, quantity numeric(12, 3), fill_date date, occurred_at timestamptz,
  primary key (source, id))`)
const consumer = new Consumer({
  clientId: 'fills-node',
  groupId: 'fills-node',
  bootstrapBrokers: stack.bootstrap_servers.split(','),
  deserializers: { headerKey: String, headerValue: String },
})
const records = await consumer.consume({
  topics: ['drx.prescriptions.v1'],
  mode: 'committed',
  fallbackMode: 'earliest',
  autocommit: false,
})
for await (const record of records) {
  if (record.headers.get('ce_type') !== 'fill.status_changed') continue
  const fill = await registry.decode(record.value)
  await database.query('insert into fills_node values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing', [
    record.headers.get('ce_source'), record.headers.get('ce_id'), fill.prescription_id, fill.fill_number, // 0: original
    fill.fill_status, fill.quantity_dispensed, fill.fill_date, fill.occurred_at,
  ])
  await record.commit() // after the work, never before
}
