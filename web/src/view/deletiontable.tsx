// The table of deletions.

import { deletionValues, type Deletion } from '../model/deletion.ts'
import { grouped } from '../model/format.ts'
import { type Link } from '../model/link.ts'
import { type Navigate } from '../state.ts'
import { Age, Count, Id, Name, None, Passage, SortedTable, State, Took, type Column } from './table.tsx'

const columns: Column<Deletion, keyof typeof deletionValues>[] = [
  { key: 'id', title: 'Deletion', cell: (d) => <Id id={d.id} /> },
  { key: 'state', title: 'State', cell: (d) => <State tone={d.state === 'finished' ? 'done' : 'busy'}>{d.state}</State> },
  { key: 'tenant', title: 'Tenant', cell: (d) => <Name text={d.tenant} /> },
  { key: 'service', title: 'Service', cell: (d) => (d.service === null ? <None>every service</None> : <Name text={d.service} />) },
  { key: 'objects', title: 'Objects', numeric: true, cell: (d) => <Count value={d.objects} /> },
  { key: 'remaining', title: 'In bucket', numeric: true, cell: (d) => <Count value={d.remaining} /> },
  { key: 'age', title: 'Age', numeric: true, cell: (d) => <Age ms={d.age} /> },
  { key: 'took', title: 'Took', numeric: true, cell: (d) => <Took ms={d.took} /> },
  { key: 'selector', title: 'Selector', cell: (d) => <Passage text={d.selector} code /> },
]

export function DeletionTable({ deletions, link, navigate }: { deletions: Deletion[]; link: Link; navigate: Navigate }) {
  return (
    <SortedTable
      name="deletions"
      caption="Deletions"
      captionHidden
      columns={columns}
      values={deletionValues}
      rows={deletions}
      rowKey={(d) => d.id}
      link={link}
      navigate={navigate}
    />
  )
}

export function DeletionFacts({ deletions }: { deletions: Deletion[] }) {
  const finished = deletions.filter((d) => d.state === 'finished').length
  return (
    <>
      {grouped(deletions.length - finished)} under way · {grouped(finished)} finished
    </>
  )
}
