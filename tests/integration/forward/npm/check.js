// A receiver as any team would write it with the official package: verifies each delivery and says so on stdout, one
// JSON line for the port and one for each request. The secret is the first argument; the second, how many requests are
// answered 503 before the first is taken; a delivery that proves false is answered 401.
'use strict'

const http = require('node:http')
const { Webhook } = require('standardwebhooks')

const webhook = new Webhook(process.argv[2])
let refused = Number(process.argv[3] || 0)
const say = value => process.stdout.write(JSON.stringify(value) + '\n')

const server = http.createServer((request, response) => {
  const chunks = []
  request.on('data', chunk => chunks.push(chunk))
  request.on('end', () => {
    if (request.method !== 'POST') {
      response.writeHead(405).end()
      return
    }
    const body = Buffer.concat(chunks).toString()
    let status = 204
    let error = ''
    try {
      webhook.verify(body, request.headers)
    } catch (caught) {
      status = 401
      error = String(caught.message)
    }
    if (status === 204 && refused > 0) {
      refused -= 1
      status = 503
    }
    say({ status, error, path: request.url, headers: request.headers, body })
    response.writeHead(status).end()
  })
})

server.listen(0, '127.0.0.1', () => say({ port: server.address().port }))
