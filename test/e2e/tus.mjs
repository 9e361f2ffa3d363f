// Uploads one file with an unmodified tus-js-client, as a phone would.
// Usage: node tus.mjs WEB_DIR ENDPOINT FILE, token and metadata in TRAMO_TEST_TOKEN and TRAMO_TEST_METADATA.
// TRAMO_TEST_UPLOAD_URL is the address of an upload that is there already.
// TRAMO_TEST_PARALLEL sends it as so many partial uploads, TRAMO_TEST_DEFERRED without saying its size first.
// Prints {"url", "attempts", "offsets"}: how often a request body was begun, and the offsets it began at.
import { createReadStream, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { PassThrough } from 'node:stream'

const [webDir, endpoint, file] = process.argv.slice(2)
const tus = createRequire(resolve(webDir, 'package.json'))('tus-js-client')
const offsets = []
const parallel = Number(process.env.TRAMO_TEST_PARALLEL ?? 1)
const deferred = process.env.TRAMO_TEST_DEFERRED === '1'

const upload = new tus.Upload(deferred ? createReadStream(file).pipe(new PassThrough()) : createReadStream(file), {
  endpoint,
  uploadUrl: process.env.TRAMO_TEST_UPLOAD_URL,
  uploadSize: parallel > 1 || deferred ? undefined : statSync(file).size,
  parallelUploads: parallel,
  uploadLengthDeferred: deferred,
  retryDelays: [0, 100, 200, 400, 800, 1600, 3200],
  headers: { Authorization: `Bearer ${process.env.TRAMO_TEST_TOKEN}` },
  metadata: JSON.parse(process.env.TRAMO_TEST_METADATA),
  chunkSize: Number(process.env.TRAMO_TEST_CHUNK ?? Infinity),
  onBeforeRequest(request) {
    if (request.getMethod() === 'PATCH') offsets.push(Number(request.getHeader('Upload-Offset')))
  },
  onError(error) {
    console.error(String(error))
    process.exit(1)
  },
  onSuccess() {
    console.log(JSON.stringify({ url: upload.url, attempts: offsets.length, offsets }))
  },
})
upload.start()
