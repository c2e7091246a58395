import assert from 'node:assert/strict'
import test from 'node:test'
import { memberValues, nodeValues, readCluster } from '../src/model/cluster.ts'
import { jobValues, readCompaction } from '../src/model/compaction.ts'
import { deletionValues, readDeletions } from '../src/model/deletion.ts'
import { parseSort, printSort, sortRows } from '../src/model/table.ts'

const NOW = 1_795_981_007_000
/** ago is a moment as the API writes it. */
const ago = (ms) => String(BigInt(NOW - ms) * 1_000_000n)

const VOTER = 'SUFFRAGE_VOTER'
const LEADER = { id: 'a', raftAddress: 'a:1', serviceAddress: 'a:2', suffrage: VOTER, leads: true, reachable: true, lastIndex: '1284417', appliedIndex: '1284415', commandVersion: 2 }

test('members: their roles, and how far each is behind the log of the leader', () => {
  const { members } = readCluster({
    members: [
      LEADER,
      { id: 'b', suffrage: VOTER, reachable: true, lastIndex: '1284400', appliedIndex: '1284390', reason: 'disk_full' },
      { id: 'c', suffrage: 'SUFFRAGE_LEARNER', reachable: true, lastIndex: '1284420', appliedIndex: '1284420' },
    ],
  })
  assert.deepEqual(members[0], {
    id: 'a', role: 'leader', raftAddress: 'a:1', serviceAddress: 'a:2', applied: 1284415, last: 1284417, behind: 2, commandVersion: 2, answers: true, state: 'ok',
  })
  assert.deepEqual(members.map((m) => m.role), ['leader', 'voter', 'learner'])
  assert.deepEqual(members.map((m) => m.behind), [2, 27, 0]) // c was asked a moment later than a
  assert.deepEqual(members.map((m) => m.state), ['ok', 'disk_full', 'ok'])
  assert.equal(members[1].commandVersion, null) // it has not said
})

test('a member that does not answer has said nothing, not zero', () => {
  const { members } = readCluster({ members: [LEADER, { id: 'b', suffrage: VOTER, commandVersion: 1 }] })
  const { applied, last, behind, serviceAddress, answers, state, commandVersion } = members[1]
  assert.deepEqual({ applied, last, behind, serviceAddress, answers }, { applied: null, last: null, behind: null, serviceAddress: null, answers: false })
  assert.equal(state, 'does not answer')
  assert.equal(commandVersion, 1) // it announced that before
})

test('nobody knows how far behind a member is while the leader does not answer', () => {
  const { members } = readCluster({ members: [{ ...LEADER, reachable: false }, { id: 'b', reachable: true, appliedIndex: '5', lastIndex: '5' }] })
  assert.equal(members[1].behind, null)
})

test('nodes, and a cluster that has no name yet', () => {
  const roles = ['distributor', 'metastore']
  const { id, term, members, nodes } = readCluster({ term: '3', nodes: [{ node: 'n', address: 'n:1', roles, ageMs: '194' }, {}] })
  assert.deepEqual({ id, term, members }, { id: '', term: 3, members: [] })
  assert.deepEqual(nodes, [{ id: 'n', address: 'n:1', roles, seen: 194 }, { id: '', address: '', roles: [], seen: 0 }])
})

test('levels and jobs, with ages by the clock of the server', () => {
  const { levels, tombstones, jobs } = readCompaction(
    {
      levels: [{ entries: '4', bytes: '16948', oldestWaiting: ago(20_000) }, { level: 1, entries: '1', bytes: '9' }],
      tombstones: '57',
      jobs: [
        { id: 'w', state: 'JOB_STATE_WAITING', shard: 3, sources: 20, sourceBytes: '8912896', created: ago(9_000), failures: 2, lastFailure: 'lease ended' },
        { id: 'r', state: 'JOB_STATE_RUNNING', tenant: 't', level: 1, created: ago(8_000), assigned: ago(2_500) },
        { id: 'd', state: 'JOB_STATE_DONE', created: ago(7_000), assigned: ago(6_000), finished: ago(5_688), outputs: 6, outputBytes: '77' },
      ],
    },
    NOW,
  )
  assert.deepEqual(levels, [{ level: 0, objects: 4, bytes: 16948, waiting: 20_000 }, { level: 1, objects: 1, bytes: 9, waiting: null }])
  assert.equal(tombstones, 57)
  assert.deepEqual(jobs.map((j) => j.id), ['d', 'r', 'w'])
  assert.deepEqual(jobs.map((j) => j.state), ['done', 'running', 'waiting'])
  assert.deepEqual(jobs.map((j) => j.age), [7_000, 8_000, 9_000])
  assert.deepEqual(jobs.map((j) => Math.round(j.took)), [312, 2_500, 0])
  assert.equal(jobs[2].took, null)
  assert.deepEqual(jobs[2], {
    id: 'w', state: 'waiting', level: 0, shard: 3, tenant: '', sources: 20, sourceBytes: 8912896, outputs: 0, outputBytes: 0, age: 9_000, took: null, failures: 2, lastFailure: 'lease ended',
  })
})

test('what happened after the answer by its own clock is new, not in the future', () => {
  assert.equal(readCompaction({ jobs: [{ created: ago(-400) }] }, NOW).jobs[0].age, 0)
})

test('deletions: every service is not the service without a name', () => {
  const deletions = readDeletions(
    {
      deletions: [
        { id: '1', tenant: 't', state: 'DELETION_STATE_FINISHED', requested: ago(90_000), finished: ago(60_000), objects: '318' },
        { id: '2', tenant: 't', service: '', selector: '{a="b"}', state: 'DELETION_STATE_HIDDEN', requested: ago(5_000), objects: '46', remaining: '12' },
      ],
    },
    NOW,
  )
  assert.deepEqual(deletions, [
    { id: '2', state: 'hidden', tenant: 't', service: '', selector: '{a="b"}', objects: 46, remaining: 12, age: 5_000, took: null },
    { id: '1', state: 'finished', tenant: 't', service: null, selector: '', objects: 318, remaining: 0, age: 90_000, took: 30_000 },
  ])
})

test('an empty answer is empty tables', () => {
  assert.deepEqual(readCompaction({}, NOW), { levels: [], tombstones: 0, jobs: [] })
  assert.deepEqual(readDeletions({}, NOW), [])
  assert.deepEqual(readCluster({}), { id: '', term: 0, members: [], nodes: [] })
})

const ids = (rows) => rows.map((r) => r.id).join('')

test('rows sort either way; what is not known comes last, and equals stay as they were', () => {
  const rows = [{ id: 'a', n: 2 }, { id: 'b', n: null }, { id: 'c', n: 10 }, { id: 'd', n: 2 }]
  const values = { n: (r) => r.n }
  assert.equal(ids(sortRows(rows, values, { by: 'n', descending: false })), 'adcb')
  assert.equal(ids(sortRows(rows, values, { by: 'n', descending: true })), 'cadb')
  assert.equal(ids(rows), 'abcd')
})

test('states and roles sort by what matters first, not by their letters', () => {
  const jobs = ['waiting', 'done', 'running', 'waiting'].map((state, i) => ({ id: i, state }))
  assert.equal(ids(sortRows(jobs, jobValues, { by: 'state', descending: false })), '2031')
  const deletions = ['finished', 'hidden'].map((state, i) => ({ id: i, state }))
  assert.equal(ids(sortRows(deletions, deletionValues, { by: 'state', descending: false })), '10')
  const members = ['learner', 'voter', 'leader'].map((role, i) => ({ id: i, role }))
  assert.equal(ids(sortRows(members, memberValues, { by: 'role', descending: false })), '210')
  const nodes = [['b'], ['a', 'c']].map((roles, i) => ({ id: i, roles }))
  assert.equal(ids(sortRows(nodes, nodeValues, { by: 'roles', descending: false })), '10')
})

test('an order is read as it is written, and only for columns there are', () => {
  for (const sort of [{ by: 'age', descending: true }, { by: 'id', descending: false }]) {
    assert.deepEqual(parseSort(printSort(sort), ['id', 'age']), sort)
  }
  for (const text of [null, '', '-', 'toString', '--age']) assert.equal(parseSort(text, ['id', 'age']), null)
})
