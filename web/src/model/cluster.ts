// The cluster: the members of the metastore's group, and the nodes of every role.

import { type Values } from './table.ts'
import { count, type WireNumber } from './wire.ts'

/** WireCluster is kiln.admin.v1.GetClusterResponse as proto3 JSON. */
export interface WireCluster {
  cluster?: string
  members?: WireMember[]
  nodes?: WireNode[]
  term?: WireNumber
}

interface WireMember {
  id?: string
  raftAddress?: string
  serviceAddress?: string
  suffrage?: WireNumber
  leads?: boolean
  reachable?: boolean
  lastIndex?: WireNumber
  appliedIndex?: WireNumber
  reason?: string
  commandVersion?: number
}

interface WireNode {
  node?: string
  address?: string
  roles?: string[]
  ageMs?: WireNumber
}

/** A member that does not answer has null for what only it could say. */
export interface Member {
  id: string
  role: 'leader' | 'voter' | 'learner'
  raftAddress: string
  serviceAddress: string | null
  applied: number | null
  last: number | null
  /** Entries of the leader's log that it has not applied. */
  behind: number | null
  commandVersion: number | null
  answers: boolean
  /** ok, why it cannot serve, or that it does not answer. */
  state: string
}

export interface Node {
  id: string
  address: string
  roles: string[]
  /** Milliseconds since it was last heard of. */
  seen: number
}

export interface Cluster {
  id: string
  term: number
  members: Member[]
  nodes: Node[]
}

export function readCluster(wire: WireCluster): Cluster {
  const members = wire.members ?? []
  const leader = members.find((m) => m.leads && m.reachable)
  return {
    id: wire.cluster ?? '',
    term: count(wire.term),
    members: members.map((m) => readMember(m, leader)),
    nodes: (wire.nodes ?? []).map((n) => ({
      id: n.node ?? '',
      address: n.address ?? '',
      roles: n.roles ?? [],
      seen: count(n.ageMs),
    })),
  }
}

function readMember(m: WireMember, leader: WireMember | undefined): Member {
  const answers = m.reachable ?? false
  const applied = answers ? count(m.appliedIndex) : null
  return {
    id: m.id ?? '',
    role: m.leads ? 'leader' : m.suffrage === 'SUFFRAGE_VOTER' ? 'voter' : 'learner',
    raftAddress: m.raftAddress ?? '',
    serviceAddress: m.serviceAddress || null,
    applied,
    last: answers ? count(m.lastIndex) : null,
    // Members are asked one after the other: one may be ahead of what the leader said.
    behind: applied === null || leader === undefined ? null : Math.max(0, count(leader.lastIndex) - applied),
    commandVersion: m.commandVersion || null,
    answers,
    state: !answers ? 'does not answer' : m.reason || 'ok',
  }
}

const ROLES = ['leader', 'voter', 'learner']

export const memberValues = {
  id: (m) => m.id,
  role: (m) => ROLES.indexOf(m.role),
  state: (m) => m.state,
  raftAddress: (m) => m.raftAddress,
  serviceAddress: (m) => m.serviceAddress,
  applied: (m) => m.applied,
  last: (m) => m.last,
  behind: (m) => m.behind,
  commandVersion: (m) => m.commandVersion,
} satisfies Values<Member>

export const nodeValues = {
  id: (n) => n.id,
  address: (n) => n.address,
  seen: (n) => n.seen,
  roles: (n) => n.roles.join(' '),
} satisfies Values<Node>
