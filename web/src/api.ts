// The four calls the page makes, as Connect JSON: POST, proto3 JSON in and out, errors as {code, message}.

import { type WireFlameGraph } from './model/flame.ts'
import { type WireLabels } from './model/profiletype.ts'
import { type Span } from './model/range.ts'
import { type WireSeries } from './model/timeline.ts'

/** Caller says who asks and until when the answer is wanted. */
export interface Caller {
  tenant: string
  signal: AbortSignal
}

export class ApiError extends Error {
  readonly code: string
  readonly status: number

  constructor(code: string, message: string, status: number) {
    super(message)
    this.code = code
    this.status = status
  }
}

/** More than a screen can show, few enough to draw at once. */
const MAX_NODES = '16384'

const times = (span: Span) => ({ start: String(Math.floor(span.start)), end: String(Math.ceil(span.end)) })

export async function fetchLabels(span: Span, caller: Caller): Promise<WireLabels[]> {
  const request = { labelNames: ['service_name', '__profile_type__'], ...times(span) }
  const answer = await call<{ labelsSet?: WireLabels[] }>('Series', request, caller)
  return answer.labelsSet ?? []
}

export async function fetchSeries(
  profileTypeID: string,
  labelSelector: string,
  span: Span,
  step: number,
  caller: Caller,
): Promise<WireSeries[]> {
  const request = { profileTypeID, labelSelector, ...times(span), step, groupBy: [] }
  const answer = await call<{ series?: WireSeries[] }>('SelectSeries', request, caller)
  return answer.series ?? []
}

export async function fetchFlame(
  profileTypeID: string,
  labelSelector: string,
  span: Span,
  caller: Caller,
): Promise<WireFlameGraph> {
  const format = 'PROFILE_FORMAT_FLAMEGRAPH'
  const request = { profileTypeID, labelSelector, ...times(span), maxNodes: MAX_NODES, format }
  const answer = await call<{ flamegraph?: WireFlameGraph }>('SelectMergeStacktraces', request, caller)
  return answer.flamegraph ?? {}
}

async function call<T>(method: string, request: object, caller: Caller): Promise<T> {
  const headers: Record<string, string> = { 'content-type': 'application/json' }
  if (caller.tenant !== '') headers['X-Scope-OrgID'] = caller.tenant
  let response: Response
  let text: string
  try {
    response = await fetch(new URL(`querier.v1.QuerierService/${method}`, document.baseURI), {
      method: 'POST',
      headers,
      body: JSON.stringify(request),
      signal: caller.signal,
    })
    text = await response.text()
  } catch (err) {
    if (caller.signal.aborted) throw err
    throw new ApiError('unreachable', `kiln did not answer ${method}: ${String(err)}`, 0)
  }
  if (!response.ok) throw refusal(method, response, text)
  try {
    return JSON.parse(text) as T
  } catch {
    throw new ApiError('not_json', `${method} answered ${text.length} characters that are not JSON`, response.status)
  }
}

/** refusal reads a Connect error; a proxy in between may have answered with something else. */
function refusal(method: string, response: Response, text: string): ApiError {
  try {
    const { code, message } = JSON.parse(text) as { code?: string; message?: string }
    if (code !== undefined) return new ApiError(code, message ?? '', response.status)
  } catch {
    // Not Connect's: the status line has to do.
  }
  return new ApiError(`http_${response.status}`, `${method} failed: ${response.statusText || 'no reason given'}`, response.status)
}
