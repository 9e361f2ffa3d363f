// Browsers have these globals, and Node from 20 on; the tests run on Node 18 too.
import { File } from 'node:buffer'
import { webcrypto } from 'node:crypto'

globalThis.crypto ??= webcrypto as Crypto
globalThis.File ??= File as unknown as typeof globalThis.File
