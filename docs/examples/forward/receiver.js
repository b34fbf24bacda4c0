// A receiver to try the consumer `forward` with: verifies each event, prints its id, type and key, and accepts it.
// node receiver.js PORT SECRET_FILE, after `npm install standardwebhooks`.
'use strict'

const { readFileSync } = require('node:fs')
const http = require('node:http')
const { Webhook } = require('standardwebhooks')

const [port, secretFile] = process.argv.slice(2)
const webhook = new Webhook(readFileSync(secretFile, 'utf8').trim())

function take(request, body) {
  if (request.method !== 'POST') return 405
  let event
  try {
    event = webhook.verify(body, request.headers)
  } catch {
    return 401
  }
  // Store the id here, before the response; a repeat has the same id.
  console.log(event.id, event.type, event.data.prescription_id ?? '')
  return 204
}

http.createServer((request, response) => {
  const chunks = []
  request.on('data', chunk => chunks.push(chunk))
  request.on('end', () => response.writeHead(take(request, Buffer.concat(chunks).toString())).end())
}).listen(Number(port), '127.0.0.1')
