// A client of the server's JSON API. Each build generates the types of requests and answers from server/openapi.yaml.

import createClient, { type Middleware } from 'openapi-fetch'
import { problemWords } from './i18n'
import type { components, paths } from './openapi'

type Schemas = components['schemas']

export type UploadState = Schemas['Upload']
export type UploadPage = Schemas['UploadPage']
export type Account = Schemas['Tenant']
export type ServerStatus = Schemas['UploadStatus']
export type FailureReason = Schemas['Failure']['reason']
type Problem = Schemas['Problem']

/** An answer of the API that is not a success. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
  ) {
    super(detail || `HTTP ${status}`)
  }
}

const uploads = '/api/uploads' satisfies keyof paths

/** Absolute, because tus-js-client resolves a relative Location against it. */
export const endpoint = (): string => new URL(uploads, location.href).href

/** The person-readable `detail` of a problem+json body, or its title, or ''. */
export function problemDetail(body: string): string {
  try {
    return problemText(JSON.parse(body))
  } catch {
    return ''
  }
}

// A proxy before the server may answer as well, so an error body may have any shape.
function problemText(problem: unknown): string {
  if (typeof problem !== 'object' || problem === null) return ''
  const { type, detail, title } = problem as { [key in keyof Problem]?: unknown }
  const own = problemWords(type)
  if (own) return own
  if (typeof detail === 'string' && detail) return detail
  return typeof title === 'string' ? title : ''
}

/** The thumbnail that fits a row, or null while there is none. */
export function thumbnailOf(state: UploadState): Schemas['Thumbnail'] | null {
  return state.thumbnails.find((th) => th.size === 160) ?? null
}

export function isSettled(status: ServerStatus): boolean {
  return ['completed', 'failed', 'expired', 'cancelled', 'concatenated'].includes(status)
}

export class Api {
  private readonly client

  constructor(token: () => string | null) {
    const signed: Middleware = {
      onRequest({ request }) {
        const value = token()
        if (value) request.headers.set('Authorization', `Bearer ${value}`)
      },
    }
    this.client = createClient<paths>({ baseUrl: location.origin, cache: 'no-store' })
    this.client.use(signed)
  }

  async upload(id: string): Promise<UploadState> {
    return succeeded(await this.client.GET('/api/uploads/{id}', { params: { path: { id } } }))
  }

  /** The company and the user that the access code stands for. */
  async account(): Promise<Account> {
    return succeeded(await this.client.GET('/api/tenant'))
  }

  /** A ticket opens one event stream, within 30 seconds. */
  async ticket(): Promise<string> {
    return succeeded(await this.client.POST('/api/events/tickets')).ticket
  }

  async recent(limit: number): Promise<UploadPage> {
    return succeeded(await this.client.GET(uploads, { params: { query: { limit } } }))
  }
}

function succeeded<T>({ data, error, response }: { data?: T; error?: unknown; response: Response }): T {
  if (data === undefined) throw new ApiError(response.status, problemText(error))
  return data
}
