// The bar over profiles: what is asked for.

import { useEffect, useState } from 'preact/hooks'
import { formatSpan } from '../model/format.ts'
import { REFRESHES, type Link } from '../model/link.ts'
import { defaultType, parseProfileType, profileTypeLabel, type Catalogue } from '../model/profiletype.ts'
import { fromLocalInput, localInput, PRESETS, resolve } from '../model/range.ts'
import { type Navigate } from '../state.ts'
import { Bar, RefreshButton, type ViewProps } from './bar.tsx'

interface Props extends ViewProps {
  catalogue: Catalogue
  loading: boolean
  onRefresh: () => void
}

export function Header(props: Props) {
  const { link, navigate, loading, onRefresh } = props
  return (
    <Bar {...props}>
      <Pickers {...props} />
      <LabelSelector text={link.labels} onSubmit={(labels) => navigate({ labels, zoom: '' })} />
      <div class="when">
        <RangePicker link={link} navigate={navigate} />
        <Refresh link={link} navigate={navigate} onRefresh={onRefresh} loading={loading} />
      </div>
    </Bar>
  )
}

/** withCurrent keeps a picker honest: it shows what is asked for, also when there is no such thing in this range. */
function withCurrent(options: string[], current: string): string[] {
  return current === '' || options.includes(current) ? options : [current, ...options]
}

function Pickers({ link, navigate, catalogue }: Props) {
  const types = catalogue.get(link.service) ?? []
  const pickService = (service: string) => {
    const offered = catalogue.get(service) ?? []
    const profileType = offered.includes(link.profileType) ? link.profileType : defaultType(offered)
    navigate({ service, profileType, zoom: '', picked: '' })
  }
  return (
    <>
      <label class="field">
        <span>Service</span>
        <select value={link.service} data-testid="service" onChange={(e) => pickService(e.currentTarget.value)}>
          {link.service === '' && <option value="">none</option>}
          {withCurrent([...catalogue.keys()], link.service).map((s) => (
            <option key={s} value={s}>
              {s}
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        <span>Profile</span>
        <select
          value={link.profileType}
          title={link.profileType}
          data-testid="profile-type"
          onChange={(e) => navigate({ profileType: e.currentTarget.value, zoom: '', picked: '' })}
        >
          {link.profileType === '' && <option value="">none</option>}
          {withCurrent(types, link.profileType).map((id) => (
            <option key={id} value={id} title={id}>
              {profileTypeLabel(parseProfileType(id))}
            </option>
          ))}
        </select>
      </label>
    </>
  )
}

function LabelSelector({ text, onSubmit }: { text: string; onSubmit: (text: string) => void }) {
  const [draft, setDraft] = useState(text)
  useEffect(() => setDraft(text), [text])
  const submit = () => {
    if (draft.trim() !== text) onSubmit(draft.trim())
  }
  return (
    <form
      class="field grow"
      onSubmit={(e) => {
        e.preventDefault()
        submit()
      }}
    >
      <label for="labels">Labels</label>
      <input
        id="labels"
        class="code"
        value={draft}
        placeholder={'{namespace="prod"}'}
        spellcheck={false}
        autocomplete="off"
        autocapitalize="off"
        data-testid="labels"
        onInput={(e) => setDraft(e.currentTarget.value)}
        onBlur={submit}
      />
    </form>
  )
}

function RangePicker({ link, navigate }: { link: Link; navigate: Navigate }) {
  const { range } = link
  const fixed = 'from' in range
  const pick = (value: string) => {
    if (value !== 'custom') return navigate({ range: { last: value } })
    const { start, end } = resolve(range, Date.now())
    const until = Math.ceil(end / 1000) * 1000 // what the inputs can show
    navigate({ range: { from: until - (end - start), until } })
  }
  const known = fixed || PRESETS.some((p) => p.last === range.last)
  return (
    <>
      <label class="field">
        <span>Range</span>
        <select value={fixed ? 'custom' : range.last} data-testid="range" onChange={(e) => pick(e.currentTarget.value)}>
          {!known && <option value={range.last}>Last {range.last}</option>}
          {PRESETS.map((p) => (
            <option key={p.last} value={p.last}>
              {p.label}
            </option>
          ))}
          <option value="custom">{fixed ? `Custom · ${formatSpan(range.until - range.from)}` : 'Custom…'}</option>
        </select>
      </label>
      {fixed && <CustomRange from={range.from} until={range.until} navigate={navigate} />}
    </>
  )
}

function CustomRange({ from, until, navigate }: { from: number; until: number; navigate: Navigate }) {
  const change = (edge: 'from' | 'until', text: string) => {
    const range = { from, until, [edge]: fromLocalInput(text) }
    if (range.from < range.until) navigate({ range }) // also false while a field is half typed
  }
  return (
    <span class="field custom" data-testid="custom-range">
      <input type="datetime-local" step="1" aria-label="From" value={localInput(from)} onChange={(e) => change('from', e.currentTarget.value)} />
      <span aria-hidden="true">–</span>
      <input type="datetime-local" step="1" aria-label="Until" value={localInput(until)} onChange={(e) => change('until', e.currentTarget.value)} />
    </span>
  )
}

function Refresh({ link, navigate, onRefresh, loading }: Pick<Props, 'link' | 'navigate' | 'onRefresh' | 'loading'>) {
  const moving = 'last' in link.range
  return (
    <span class="field refresh">
      <RefreshButton loading={loading} onRefresh={onRefresh} />
      <select
        aria-label="Refresh automatically"
        title={moving ? 'Refresh automatically' : 'A custom range does not move: nothing to refresh'}
        disabled={!moving}
        value={String(moving ? link.refresh : 0)}
        data-testid="auto-refresh"
        onChange={(e) => navigate({ refresh: Number(e.currentTarget.value) }, 'replace')}
      >
        {REFRESHES.map((s) => (
          <option key={s} value={String(s)}>
            {s === 0 ? 'Auto off' : `Every ${formatSpan(s * 1000)}`}
          </option>
        ))}
      </select>
    </span>
  )
}
