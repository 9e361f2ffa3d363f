// Classifies errors of a transfer. Pure functions, which tests run without a network.

export type Trouble =
  /** Retried automatically: network errors, a lease, a busy server. */
  | 'transient'
  /** The access code is missing, wrong or out of date. */
  | 'access'
  /** A retry would get the same answer. */
  | 'refused'

/** status is the HTTP status, or 0 when no answer came. */
export function classify(status: number): Trouble {
  if (status === 401) return 'access'
  if (status === 0 || status === 409 || status === 423 || status === 429 || status >= 500) return 'transient'
  return 'refused'
}

/** About ten minutes in total; tus-js-client starts over at 0 whenever bytes were sent. */
export const retryDelays: readonly number[] = [0, 1000, 3000, 5000, 10000, 20000, 30000, ...Array<number>(9).fill(60000)]
