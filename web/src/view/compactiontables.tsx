// The tables of compaction: levels of the index, jobs.

import { jobValues, type Compaction, type Job, type Level } from '../model/compaction.ts'
import { formatShare, grouped } from '../model/format.ts'
import { type Link } from '../model/link.ts'
import { type Navigate } from '../state.ts'
import { Age, Bytes, Count, Id, Name, None, Passage, SortedTable, State, Table, Took, Zero, type Column, type Tone } from './table.tsx'

const TONES: Record<string, Tone> = { running: 'busy', done: 'done' }

const jobColumns: Column<Job, keyof typeof jobValues>[] = [
  { key: 'id', title: 'Job', cell: (j) => <Id id={j.id} /> },
  { key: 'state', title: 'State', cell: (j) => <State tone={TONES[j.state] ?? 'idle'}>{j.state}</State> },
  { key: 'level', title: 'Level', numeric: true, cell: (j) => j.level },
  { key: 'shard', title: 'Shard', numeric: true, cell: (j) => j.shard },
  { key: 'tenant', title: 'Tenant', cell: (j) => (j.tenant === '' ? <None>mixed</None> : <Name text={j.tenant} />) },
  { key: 'sources', title: 'Sources', numeric: true, cell: (j) => <Count value={j.sources} /> },
  { key: 'sourceBytes', title: 'Bytes in', numeric: true, cell: (j) => <Bytes value={j.sourceBytes} /> },
  { key: 'outputs', title: 'Outputs', numeric: true, cell: (j) => <Count value={j.outputs} /> },
  { key: 'outputBytes', title: 'Bytes out', numeric: true, cell: (j) => <Bytes value={j.outputBytes} /> },
  { key: 'age', title: 'Age', numeric: true, cell: (j) => <Age ms={j.age} /> },
  { key: 'took', title: 'Took', numeric: true, cell: (j) => <Took ms={j.took} /> },
  { key: 'failures', title: 'Failures', numeric: true, cell: (j) => <Failures count={j.failures} /> },
  { key: 'lastFailure', title: 'Last failure', cell: (j) => <Passage text={j.lastFailure} /> },
]

export function CompactionTables({ compaction, link, navigate }: { compaction: Compaction; link: Link; navigate: Navigate }) {
  const order = { link, navigate }
  return (
    <>
      <Table name="levels" caption="Levels" columns={levelColumns(compaction.levels)} rows={compaction.levels} rowKey={(l) => l.level} />
      <SortedTable name="jobs" caption="Jobs" columns={jobColumns} values={jobValues} rows={compaction.jobs} rowKey={(j) => j.id} {...order} />
    </>
  )
}

export function CompactionFacts({ compaction }: { compaction: Compaction }) {
  const inState = (state: string) => compaction.jobs.filter((j) => j.state === state).length
  const { tombstones } = compaction
  return (
    <>
      {grouped(inState('running'))} running · {grouped(inState('waiting'))} waiting ·{' '}
      <span data-testid="tombstones" data-value={tombstones}>
        {grouped(tombstones)} replaced {tombstones === 1 ? 'object waits' : 'objects wait'} for deletion
      </span>
    </>
  )
}

function levelColumns(levels: Level[]): Column<Level>[] {
  const all = levels.reduce((sum, l) => sum + l.bytes, 0)
  return [
    { key: 'level', title: 'Level', cell: (l) => l.level },
    { key: 'objects', title: 'Objects', numeric: true, cell: (l) => <Count value={l.objects} /> },
    { key: 'bytes', title: 'Bytes', numeric: true, cell: (l) => <Bytes value={l.bytes} /> },
    { key: 'waiting', title: 'Oldest waiting', numeric: true, cell: (l) => <Age ms={l.waiting} /> },
    { key: 'share', title: 'Share of bytes', cell: (l) => <Share part={l.bytes} whole={all} /> },
  ]
}

function Share({ part, whole }: { part: number; whole: number }) {
  return (
    <span class="share">
      <span>{formatShare(part, whole)}</span>
      <i style={{ width: `${whole === 0 ? 0 : (100 * part) / whole}%` }} />
    </span>
  )
}

function Failures({ count }: { count: number }) {
  return count === 0 ? <Zero /> : <b class="bad">{grouped(count)}</b>
}
