// What the fake says of a cluster of three with work to do. Everything counts back from now, so that ages stay as they are.

import { HOSTILE } from './names.mjs'

const SECOND = 1e9
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE

/** ago is a moment as the API writes it: Unix nanoseconds, as text. */
const ago = (nanos) => String(BigInt(Date.now()) * 1_000_000n - BigInt(Math.round(nanos)))

const ROLES = ['metastore', 'segmentwriter', 'distributor', 'compactionworker', 'querybackend', 'queryfrontend']
const id = (tail) => `01M8MCYMQZ${tail.padStart(16, 'CRK8V8MJNFF3YJ69')}`

export const operations = {
  GetCluster: () => ({
    cluster: '01M8MCYMXQ5T1XV13M6FEMX50Q',
    term: '17',
    members: [
      { id: id('1'), raftAddress: '10.0.0.1:4041', serviceAddress: '10.0.0.1:4040', suffrage: 'SUFFRAGE_VOTER', leads: true, reachable: true, lastIndex: '1284417', appliedIndex: '1284417', commandVersion: 2 },
      { id: id('2'), raftAddress: '10.0.0.2:4041', serviceAddress: '10.0.0.2:4040', suffrage: 'SUFFRAGE_VOTER', reachable: true, lastIndex: '1284417', appliedIndex: '1284409', commandVersion: 2 },
      { id: id('3'), raftAddress: '10.0.0.3:4041', suffrage: 'SUFFRAGE_VOTER', commandVersion: 2 },
      { id: id('4'), raftAddress: 'standby.example:4041', serviceAddress: 'standby.example:4040', suffrage: 'SUFFRAGE_LEARNER', reachable: true, lastIndex: '1271003', appliedIndex: '1270998', reason: 'halted', commandVersion: 1 },
    ],
    nodes: [
      { node: id('N1'), address: '10.0.0.1:4040', roles: ROLES, ageMs: '412' },
      { node: id('N2'), address: '10.0.0.2:4040', roles: ROLES, ageMs: '2954' },
      { node: id('N3'), address: '10.0.0.7:4040', roles: ['compactionworker'], ageMs: '1260' },
      { node: id('N4'), address: HOSTILE, roles: [HOSTILE], ageMs: '14008' },
    ],
  }),
  List: () => ({
    levels: [
      { entries: '212', bytes: '91226112', oldestWaiting: ago(38 * SECOND) },
      { level: 1, entries: '1480', bytes: '7516192768', oldestWaiting: ago(11 * MINUTE) },
      { level: 2, entries: '396', bytes: '23622320128' },
      { level: 3, entries: '41', bytes: '104152956928' },
    ],
    tombstones: '57',
    jobs: [
      { id: id('J2'), state: 'JOB_STATE_WAITING', shard: 3, sources: 20, sourceBytes: '8912896', created: ago(9 * SECOND) },
      { id: id('J3'), state: 'JOB_STATE_WAITING', tenant: HOSTILE, shard: 1, level: 2, sources: 9, sourceBytes: '1503238553', created: ago(4 * MINUTE), failures: 3, lastFailure: `read block ${HOSTILE}: the bucket answered 503 Slow Down three times; gave up after 2m0s` },
      { id: id('J1'), state: 'JOB_STATE_RUNNING', tenant: 'team-checkout', shard: 1, level: 1, sources: 24, sourceBytes: '268435456', created: ago(52 * SECOND), assigned: ago(7.5 * SECOND) },
      { id: id('J7'), state: 'JOB_STATE_DONE', tenant: 'team-search', shard: 2, level: 1, sources: 22, sourceBytes: '241591910', created: ago(2.2 * HOUR), assigned: ago(2.1 * HOUR), finished: ago(2.1 * HOUR - 4.21 * SECOND), outputs: 1, outputBytes: '198180864', failures: 1, lastFailure: 'lease ended' },
      { id: id('J8'), state: 'JOB_STATE_DONE', shard: 4, sources: 20, sourceBytes: '8388608', created: ago(3 * MINUTE), assigned: ago(3 * MINUTE), finished: ago(3 * MINUTE - 0.312 * SECOND), outputs: 6, outputBytes: '7759462' },
    ],
  }),
  ListDeletions: () => ({
    deletions: [
      { id: id('D1'), tenant: 'team-search', service: 'indexer', state: 'DELETION_STATE_FINISHED', requested: ago(30 * HOUR), finished: ago(30 * HOUR - 11 * MINUTE), objects: '318' },
      { id: id('D2'), tenant: 'team-legacy', state: 'DELETION_STATE_FINISHED', requested: ago(5 * HOUR), finished: ago(5 * HOUR - 14.5 * MINUTE), objects: '2904' },
      { id: id('D3'), tenant: 'team-checkout', service: HOSTILE, selector: `{pod="checkout-7f9",version=~"1.*",note="${HOSTILE}"}`, state: 'DELETION_STATE_HIDDEN', requested: ago(3.4 * MINUTE), objects: '46', remaining: '12' },
    ],
  }),
}
