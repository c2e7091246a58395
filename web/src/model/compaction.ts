// Compaction: the levels of the index, and the jobs that lift objects from one to the next.

import { type Values } from './table.ts'
import { between, count, enumName, moment, type WireNumber } from './wire.ts'

/** WireCompaction is kiln.compaction.v1.ListResponse as proto3 JSON. */
export interface WireCompaction {
  jobs?: WireJob[]
  levels?: { level?: number; entries?: WireNumber; bytes?: WireNumber; oldestWaiting?: WireNumber }[]
  tombstones?: WireNumber
}

interface WireJob {
  id?: string
  state?: WireNumber
  tenant?: string
  shard?: number
  level?: number
  sources?: number
  sourceBytes?: WireNumber
  failures?: number
  lastFailure?: string
  created?: WireNumber
  assigned?: WireNumber
  finished?: WireNumber
  outputs?: number
  outputBytes?: WireNumber
}

export interface Level {
  level: number
  objects: number
  bytes: number
  /** Milliseconds that the oldest object has waited which no job has taken. */
  waiting: number | null
}

export interface Job {
  id: string
  state: string
  level: number
  shard: number
  /** Empty for level 0, whose segments mix tenants. */
  tenant: string
  sources: number
  sourceBytes: number
  outputs: number
  outputBytes: number
  /** Milliseconds since it was made. */
  age: number | null
  /** Milliseconds of work: up to now while it runs. */
  took: number | null
  failures: number
  lastFailure: string
}

export interface Compaction {
  levels: Level[]
  /** Replaced objects that wait for their deletion. */
  tombstones: number
  /** Newest first. */
  jobs: Job[]
}

export function readCompaction(wire: WireCompaction, now: number): Compaction {
  return {
    levels: (wire.levels ?? []).map((l) => ({
      level: l.level ?? 0,
      objects: count(l.entries),
      bytes: count(l.bytes),
      waiting: between(moment(l.oldestWaiting), now),
    })),
    tombstones: count(wire.tombstones),
    jobs: (wire.jobs ?? []).map((j) => readJob(j, now)).reverse(),
  }
}

function readJob(j: WireJob, now: number): Job {
  const state = enumName(j.state, 'JOB_STATE')
  return {
    id: j.id ?? '',
    state,
    level: j.level ?? 0,
    shard: j.shard ?? 0,
    tenant: j.tenant ?? '',
    sources: j.sources ?? 0,
    sourceBytes: count(j.sourceBytes),
    outputs: j.outputs ?? 0,
    outputBytes: count(j.outputBytes),
    age: between(moment(j.created), now),
    took: between(moment(j.assigned), state === 'running' ? now : moment(j.finished)),
    failures: j.failures ?? 0,
    lastFailure: j.lastFailure ?? '',
  }
}

/** Work first: what runs, what waits for it, what is done. */
const STATES = ['running', 'waiting', 'done']

export const jobValues = {
  id: (j) => j.id,
  state: (j) => STATES.indexOf(j.state),
  level: (j) => j.level,
  shard: (j) => j.shard,
  tenant: (j) => j.tenant,
  sources: (j) => j.sources,
  sourceBytes: (j) => j.sourceBytes,
  outputs: (j) => j.outputs,
  outputBytes: (j) => j.outputBytes,
  age: (j) => j.age,
  took: (j) => j.took,
  failures: (j) => j.failures,
  lastFailure: (j) => j.lastFailure || null,
} satisfies Values<Job>
