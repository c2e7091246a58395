// The tables of the cluster: members of the metastore's group, nodes of every role.

import { memberValues, nodeValues, type Cluster, type Member, type Node } from '../model/cluster.ts'
import { type Link } from '../model/link.ts'
import { type Navigate } from '../state.ts'
import { Age, Code, Count, Id, SortedTable, State, type Column } from './table.tsx'

const memberColumns: Column<Member, keyof typeof memberValues>[] = [
  { key: 'id', title: 'Member', cell: (m) => <Id id={m.id} /> },
  { key: 'role', title: 'Role', cell: (m) => (m.role === 'leader' ? <b>leader</b> : m.role) },
  { key: 'state', title: 'State', cell: (m) => <State tone={m.state === 'ok' ? 'good' : 'bad'}>{m.state}</State> },
  { key: 'applied', title: 'Applied', numeric: true, cell: (m) => <Count value={m.applied} /> },
  { key: 'last', title: 'Last', numeric: true, cell: (m) => <Count value={m.last} /> },
  { key: 'behind', title: 'Behind', numeric: true, cell: (m) => <Count value={m.behind} /> },
  { key: 'commandVersion', title: 'Commands', numeric: true, cell: (m) => <Count value={m.commandVersion} /> },
  { key: 'raftAddress', title: 'Raft address', cell: (m) => <Code text={m.raftAddress} /> },
  { key: 'serviceAddress', title: 'Serves at', cell: (m) => <Code text={m.serviceAddress} /> },
]

const nodeColumns: Column<Node, keyof typeof nodeValues>[] = [
  { key: 'id', title: 'Node', cell: (n) => <Id id={n.id} /> },
  { key: 'address', title: 'Address', cell: (n) => <Code text={n.address} /> },
  { key: 'seen', title: 'Seen', numeric: true, cell: (n) => <Age ms={n.seen} ago /> },
  { key: 'roles', title: 'Roles', cell: (n) => <Roles roles={n.roles} /> },
]

export function ClusterTables({ cluster, link, navigate }: { cluster: Cluster; link: Link; navigate: Navigate }) {
  const order = { link, navigate }
  return (
    <>
      <SortedTable
        name="members"
        caption="Members of the metastore"
        columns={memberColumns}
        values={memberValues}
        rows={cluster.members}
        rowKey={(m) => m.id}
        {...order}
      />
      <SortedTable name="nodes" caption="Nodes" columns={nodeColumns} values={nodeValues} rows={cluster.nodes} rowKey={(n) => n.id} {...order} />
    </>
  )
}

export function ClusterFacts({ cluster }: { cluster: Cluster }) {
  const answering = cluster.members.filter((m) => m.answers).length
  return (
    <>
      {answering} of {cluster.members.length} members answer · term {cluster.term}
      {cluster.id !== '' && (
        <>
          {' '}
          · cluster <code>{cluster.id}</code>
        </>
      )}
    </>
  )
}

function Roles({ roles }: { roles: string[] }) {
  return (
    <>
      {roles.map((role) => (
        <span key={role} class="tag">
          {role}
        </span>
      ))}
    </>
  )
}
