// What the page knows: its link, the data behind it, who is asking. Hooks only; no markup.

import { useCallback, useEffect, useRef, useState } from 'preact/hooks'
import { ApiError, fetchFlame, fetchLabels, fetchSeries, type Caller } from './api.ts'
import { decode, type Flame } from './model/flame.ts'
import { dataKey, parseLink, printLink, type Link } from './model/link.ts'
import { catalogue, defaultType, parseProfileType, type Catalogue, type ProfileType } from './model/profiletype.ts'
import { resolve, stepOf, type Span } from './model/range.ts'
import { joinSelector } from './model/selector.ts'
import { timeline, type Timeline } from './model/timeline.ts'
import { topFunctions, type Row } from './model/top.ts'

/** Navigate changes the link. 'push' makes a step that the back button undoes; 'replace' does not. */
export type Navigate = (patch: Partial<Link>, mode?: 'push' | 'replace') => void

export function useLink(): [Link, Navigate] {
  const [link, setLink] = useState(() => parseLink(location.search))
  const current = useRef(link)
  const adopt = (next: Link) => {
    current.current = next
    setLink(next)
  }
  useEffect(() => {
    const onPop = () => adopt(parseLink(location.search))
    addEventListener('popstate', onPop)
    return () => removeEventListener('popstate', onPop)
  }, [])
  const navigate = useCallback<Navigate>((patch, mode = 'push') => {
    const next = { ...current.current, ...patch }
    const url = location.pathname + printLink(next)
    if (url === location.pathname + location.search) mode = 'replace'
    if (mode === 'push') history.pushState(null, '', url)
    else history.replaceState(null, '', url)
    adopt(next)
  }, [])
  return [link, navigate]
}

/** Data is one complete answer; its parts always belong together. */
export interface Data {
  service: string
  type: ProfileType
  span: Span
  step: number
  timeline: Timeline
  flame: Flame
  rows: Row[]
}

export interface Loaded {
  loading: boolean
  catalogue: Catalogue
  /** The last answer; it stays while the next one is on its way. Null when there was none, or nothing in it. */
  data: Data | null
  error: ApiError | null
}

export function useData(link: Link, navigate: Navigate, tenant: string): Loaded & { refresh: () => void } {
  const [loaded, setLoaded] = useState<Loaded>({ loading: true, catalogue: new Map(), data: null, error: null })
  const [round, setRound] = useState(0)
  const wanted = JSON.stringify([dataKey(link), tenant, round])
  const answered = useRef('')

  useEffect(() => {
    if (answered.current === wanted) return
    answered.current = ''
    const abort = new AbortController()
    setLoaded((was) => ({ ...was, loading: true }))
    load(link, { tenant, signal: abort.signal }).then(
      (answer) => {
        if (abort.signal.aborted) return
        // The link now names what was picked by default, so that it can be shared; that asks for nothing new.
        const picked = { service: answer.service, profileType: answer.profileType }
        answered.current = JSON.stringify([dataKey({ ...link, ...picked }), tenant, round])
        setLoaded({ loading: false, catalogue: answer.catalogue, data: answer.data, error: null })
        navigate(picked, 'replace')
      },
      (err: unknown) => {
        if (abort.signal.aborted) return
        const error = err instanceof ApiError ? err : new ApiError('page_error', String(err), 0)
        setLoaded((was) => ({ ...was, loading: false, data: null, error }))
      },
    )
    return () => abort.abort()
  }, [wanted])

  const refresh = useCallback(() => setRound((n) => n + 1), [])
  return { ...loaded, refresh }
}

interface Answer {
  catalogue: Catalogue
  service: string
  profileType: string
  data: Data | null
}

async function load(link: Link, caller: Caller): Promise<Answer> {
  const span = resolve(link.range, Date.now())
  const labels = fetchLabels(span, caller).then(catalogue)
  let { service, profileType } = link
  if (service === '' || profileType === '') {
    const known = await labels
    service ||= known.keys().next().value ?? ''
    profileType ||= defaultType(known.get(service) ?? [])
    if (profileType === '') return { catalogue: known, service, profileType, data: null }
  }
  const selector = joinSelector(service, link.labels)
  const step = stepOf(span)
  const [known, series, wire] = await Promise.all([
    labels,
    fetchSeries(profileType, selector, span, step, caller),
    fetchFlame(profileType, selector, span, caller),
  ])
  const flame = decode(wire)
  if (flame.count === 0 || flame.total[0] === 0) return { catalogue: known, service, profileType, data: null }
  const data = {
    service,
    type: parseProfileType(profileType),
    span,
    step,
    timeline: timeline(series, step, span),
    flame,
    rows: topFunctions(flame),
  }
  return { catalogue: known, service, profileType, data }
}

/** useAutoRefresh asks again every few seconds while the page is visible and its range moves with the clock. */
export function useAutoRefresh(link: Link, refresh: () => void): void {
  const moving = 'last' in link.range
  useEffect(() => {
    if (link.refresh === 0 || !moving) return
    const timer = setInterval(() => {
      if (!document.hidden) refresh()
    }, link.refresh * 1000)
    return () => clearInterval(timer)
  }, [link.refresh, moving, refresh])
}

const TENANT = 'kiln.tenant'

/** useTenant remembers the tenant in this browser, if it lets us. */
export function useTenant(): [string, (tenant: string) => void] {
  const [tenant, setTenant] = useState(() => {
    try {
      return localStorage.getItem(TENANT) ?? ''
    } catch {
      return ''
    }
  })
  const keep = useCallback((next: string) => {
    setTenant(next)
    try {
      localStorage.setItem(TENANT, next)
    } catch {
      // Storage is switched off: the tenant lives as long as the page.
    }
  }, [])
  return [tenant, keep]
}

export function useMedia(query: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(query).matches)
  useEffect(() => {
    const list = matchMedia(query)
    const onChange = () => setMatches(list.matches)
    onChange()
    list.addEventListener('change', onChange)
    return () => list.removeEventListener('change', onChange)
  }, [query])
  return matches
}
