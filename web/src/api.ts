// The calls that the page makes, as Connect JSON: POST, proto3 JSON in and out, errors as {code, message}.

import { type WireCluster } from './model/cluster.ts'
import { type WireCompaction } from './model/compaction.ts'
import { type WireDeletions } from './model/deletion.ts'
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

  /** Whether the server knows no such call, by its own words or by having nothing at that path. */
  get notServed(): boolean {
    return this.code === 'unimplemented' || this.code === 'http_404'
  }
}

/** Answer is what came back, and when by the server's clock, in milliseconds: ages are counted from there. */
export interface Answer<T> {
  body: T
  asOf: number
}

/** More than a screen can show, few enough to draw at once. */
const MAX_NODES = '16384'

const times = (span: Span) => ({ start: String(Math.floor(span.start)), end: String(Math.ceil(span.end)) })

export async function fetchLabels(span: Span, caller: Caller): Promise<WireLabels[]> {
  const request = { labelNames: ['service_name', '__profile_type__'], ...times(span) }
  const answer = await query<{ labelsSet?: WireLabels[] }>('Series', request, caller)
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
  const answer = await query<{ series?: WireSeries[] }>('SelectSeries', request, caller)
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
  const answer = await query<{ flamegraph?: WireFlameGraph }>('SelectMergeStacktraces', request, caller)
  return answer.flamegraph ?? {}
}

export const CLUSTER_SERVICE = 'kiln.admin.v1.ClusterService'
export const JOB_SERVICE = 'kiln.compaction.v1.JobService'
export const DELETION_SERVICE = 'kiln.admin.v1.DeletionService'

export function fetchCluster(caller: Caller): Promise<Answer<WireCluster>> {
  return call(CLUSTER_SERVICE, 'GetCluster', {}, caller)
}

export function fetchCompaction(caller: Caller): Promise<Answer<WireCompaction>> {
  return call(JOB_SERVICE, 'List', {}, caller)
}

export function fetchDeletions(caller: Caller): Promise<Answer<WireDeletions>> {
  return call(DELETION_SERVICE, 'ListDeletions', {}, caller)
}

async function query<T>(method: string, request: object, caller: Caller): Promise<T> {
  return (await call<T>('querier.v1.QuerierService', method, request, caller)).body
}

async function call<T>(service: string, method: string, request: object, caller: Caller): Promise<Answer<T>> {
  const headers: Record<string, string> = { 'content-type': 'application/json' }
  if (caller.tenant !== '') headers['X-Scope-OrgID'] = caller.tenant
  let response: Response
  let text: string
  try {
    response = await fetch(new URL(`${service}/${method}`, document.baseURI), {
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
    const asOf = Date.parse(response.headers.get('date') ?? '') || Date.now()
    return { body: JSON.parse(text) as T, asOf }
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
