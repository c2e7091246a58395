// The tables of the page of operations that sort, and the order each begins with.

import { memberValues, nodeValues } from './cluster.ts'
import { jobValues } from './compaction.ts'
import { deletionValues } from './deletion.ts'
import { parseSort, printSort, type Sort } from './table.ts'

const COLUMNS = {
  members: Object.keys(memberValues),
  nodes: Object.keys(nodeValues),
  jobs: Object.keys(jobValues),
  deletions: Object.keys(deletionValues),
}

export type TableName = keyof typeof COLUMNS
export type Sorts = Record<TableName, Sort>

const NAMES = Object.keys(COLUMNS) as TableName[]

export const DEFAULT_SORTS: Sorts = {
  members: { by: 'id', descending: false },
  nodes: { by: 'address', descending: false },
  jobs: { by: 'state', descending: false },
  deletions: { by: 'state', descending: false },
}

/** parseSorts reads sort.jobs=-age and its like. */
export function parseSorts(params: URLSearchParams): Sorts {
  const sorts = { ...DEFAULT_SORTS }
  for (const name of NAMES) sorts[name] = parseSort(params.get(`sort.${name}`), COLUMNS[name]) ?? sorts[name]
  return sorts
}

/** printSorts puts those that are not as they began. */
export function printSorts(sorts: Sorts, put: (key: string, value: string) => void): void {
  for (const name of NAMES) {
    const text = printSort(sorts[name])
    put(`sort.${name}`, text === printSort(DEFAULT_SORTS[name]) ? '' : text)
  }
}
