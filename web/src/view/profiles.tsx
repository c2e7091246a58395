// The view of profiles: which parts it has and what they tell each other.

import { useEffect, useMemo } from 'preact/hooks'
import { findPath, pathKey, truncated } from '../model/flame.ts'
import { formatShare, formatValue, grouped } from '../model/format.ts'
import { type Link } from '../model/link.ts'
import { matched, matches } from '../model/top.ts'
import { type Data, type Navigate, useAutoRefresh, useData, useMedia } from '../state.ts'
import { type ViewProps } from './bar.tsx'
import { FlameGraph } from './flamegraph.tsx'
import { Header } from './header.tsx'
import { Empty, Failure, Loading, TenantPrompt } from './messages.tsx'
import { Timeline } from './timeline.tsx'
import { TopTable } from './toptable.tsx'

export function Profiles(props: ViewProps) {
  const { link, navigate, tenant, onTenant } = props
  const { loading, catalogue, data, error, refresh } = useData(link, navigate, tenant)
  useAutoRefresh(link, refresh)
  useEscape(() => navigate({ picked: '', zoom: '' }))

  const answerTenant = (id: string) => {
    onTenant(id)
    refresh() // also when it is the one that was just refused
  }

  const content = () => {
    if (error?.status === 401) return <TenantPrompt tenant={tenant} error={error} onTenant={answerTenant} />
    if (error !== null) return <Failure error={error} onRetry={refresh} />
    if (data !== null) return <Results data={data} link={link} navigate={navigate} />
    return loading ? <Loading /> : <Empty link={link} navigate={navigate} />
  }
  return (
    <>
      <Header {...props} catalogue={catalogue} loading={loading} onRefresh={refresh} />
      <main class={loading ? 'stale' : ''} tabIndex={-1} aria-busy={loading} data-testid="main">
        {content()}
      </main>
    </>
  )
}

/** useEscape runs reset when Escape is pressed outside of form fields, which have their own use for it. */
function useEscape(reset: () => void): void {
  useEffect(() => {
    const onKey = (e: KeyboardEvent) => {
      if (e.key === 'Escape' && !(e.target as HTMLElement).closest('input, select')) reset()
    }
    addEventListener('keydown', onKey)
    return () => removeEventListener('keydown', onKey)
  }, [])
}

function Results({ data, link, navigate }: { data: Data; link: Link; navigate: Navigate }) {
  const { flame, type } = data
  const scheme = useMedia('(prefers-color-scheme: dark)') ? 'dark' : 'light'
  const zoom = useMemo(() => findPath(flame, link.zoom), [flame, link.zoom])
  const found = useMemo(() => (link.search === '' ? null : matches(flame.names, link.search)), [flame, link.search])
  const picked = useMemo(() => {
    const name = link.picked === '' ? -1 : flame.names.indexOf(link.picked)
    return name < 0 ? null : Uint8Array.from(flame.names, (_, i) => (i === name ? 1 : 0))
  }, [flame, link.picked])
  const highlight = picked ?? found

  return (
    <>
      <Timeline data={data} scheme={scheme} onSelect={(from, until) => navigate({ range: { from, until } })} />
      <div class="toolbar">
        <Search link={link} navigate={navigate} />
        <MatchNote data={data} names={highlight} />
        <p class="facts">
          <b data-testid="flame-total" data-value={flame.total[0]}>
            {formatValue(flame.total[0]!, type.unit)}
          </b>{' '}
          in <span data-testid="flame-frames">{grouped(flame.count)}</span> frames
          {truncated(flame) && <span class="tag" title="The smallest frames were folded into frames named other">truncated</span>}
        </p>
      </div>
      <div class="split">
        <TopTable
          data={data}
          scheme={scheme}
          found={found}
          picked={link.picked}
          onPick={(name) => navigate({ picked: name === link.picked ? '' : name })}
          order={link.order}
          onOrder={(order) => navigate({ order }, 'replace')}
        />
        <FlameGraph
          flame={flame}
          unit={type.unit}
          scheme={scheme}
          zoom={zoom}
          highlight={highlight}
          onZoom={(frame) => navigate({ zoom: pathKey(flame, frame) })}
        />
      </div>
    </>
  )
}

function Search({ link, navigate }: { link: Link; navigate: Navigate }) {
  return (
    <label class="search">
      <span class="hidden">Search functions</span>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <circle cx="7" cy="7" r="4.5" />
        <path d="M10.500 10.500 14 14" />
      </svg>
      <input
        type="search"
        placeholder="Search functions…"
        spellcheck={false}
        autocomplete="off"
        value={link.search}
        data-testid="search"
        onInput={(e) => navigate({ search: e.currentTarget.value, picked: '' }, 'replace')}
      />
    </label>
  )
}

function MatchNote({ data, names }: { data: Data; names: Uint8Array | null }) {
  const match = useMemo(() => (names === null ? null : matched(data.flame, names)), [data.flame, names])
  if (match === null) return null
  const total = data.flame.total[0]!
  return (
    <p class="match" role="status" data-testid="match" data-value={match.total} data-frames={match.frames}>
      <b data-testid="match-share">{formatShare(match.total, total)}</b> matched · {formatValue(match.total, data.type.unit)} in{' '}
      {grouped(match.frames)} {match.frames === 1 ? 'frame' : 'frames'}
    </p>
  )
}
