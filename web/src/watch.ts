// Answers that are renewed every few seconds while somebody looks. No markup.

import { useEffect, useRef, useState } from 'preact/hooks'
import { ApiError, fetchCluster, fetchCompaction, fetchDeletions, type Answer, type Caller } from './api.ts'
import { readCluster, type Cluster } from './model/cluster.ts'
import { readCompaction, type Compaction } from './model/compaction.ts'
import { readDeletions, type Deletion } from './model/deletion.ts'

/** Milliseconds between an answer and the next question. */
export const EVERY = 5_000
/** Milliseconds after which no answer is one. */
const PATIENCE = 15_000

export interface Watched<T> {
  /** Asked for the first time, or because somebody wanted it. */
  loading: boolean
  /** The last answer; it stays when the next question gets none. */
  answer: Answer<T> | null
  error: ApiError | null
}

/**
 * useWatched asks now, when the round changes, and again and again unless that is pointless: while it is paused, while
 * nobody can see the page, when the server does not serve it, when it wants a tenant first.
 */
export function useWatched<T>(ask: (caller: Caller) => Promise<Answer<T>>, tenant: string, paused: boolean, round: number): Watched<T> {
  const [watched, setWatched] = useState<Watched<T>>({ loading: true, answer: null, error: null })
  const answered = useRef('')

  useEffect(() => {
    const wanted = JSON.stringify([tenant, round])
    if (paused && answered.current === wanted) return
    const stop = new AbortController()
    let timer: ReturnType<typeof setTimeout> | undefined
    const look = async () => {
      const found = await attempt(ask, tenant, stop.signal)
      if (stop.signal.aborted) return
      answered.current = wanted
      setWatched((was) => ({ ...was, ...found, loading: false }))
      if (paused || found.error?.notServed || found.error?.status === 401) return
      timer = setTimeout(lookWhenVisible, EVERY)
    }
    const lookWhenVisible = () => {
      if (!document.hidden) void look()
      else document.addEventListener('visibilitychange', look, { once: true, signal: stop.signal })
    }
    if (answered.current !== wanted) setWatched((was) => ({ ...was, loading: true }))
    void look()
    return () => {
      clearTimeout(timer)
      stop.abort()
    }
  }, [ask, tenant, paused, round])

  return watched
}

export const askCluster = async (caller: Caller): Promise<Answer<Cluster>> => read(await fetchCluster(caller), readCluster)

export const askCompaction = async (caller: Caller): Promise<Answer<Compaction>> => read(await fetchCompaction(caller), readCompaction)

export const askDeletions = async (caller: Caller): Promise<Answer<Deletion[]>> => read(await fetchDeletions(caller), readDeletions)

function read<Wire, T>({ body, asOf }: Answer<Wire>, reader: (wire: Wire, now: number) => T): Answer<T> {
  return { body: reader(body, asOf), asOf }
}

async function attempt<T>(ask: (caller: Caller) => Promise<Answer<T>>, tenant: string, stop: AbortSignal) {
  const patience = AbortSignal.timeout(PATIENCE)
  try {
    const answer = await ask({ tenant, signal: AbortSignal.any([stop, patience]) })
    return { answer, error: null }
  } catch (err) {
    if (err instanceof ApiError) return { error: err }
    if (patience.aborted) return { error: new ApiError('unreachable', `kiln did not answer within ${PATIENCE / 1000} s`, 0) }
    return { error: new ApiError('page_error', String(err), 0) }
  }
}
