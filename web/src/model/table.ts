// Tables of any kind of row: by what each column sorts, and how the order is written into a link.

/** null is what is not known: it comes last, whichever way a column is sorted. */
export type Value = string | number | null

/** Values gives for each column what its rows sort by. */
export type Values<Row> = Record<string, (row: Row) => Value>

export interface Sort {
  by: string
  descending: boolean
}

/** sortRows returns a new array; equal rows stay in the order they had. */
export function sortRows<Row>(rows: Row[], values: Values<Row>, { by, descending }: Sort): Row[] {
  const value = values[by]!
  const sign = descending ? -1 : 1
  return [...rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)]
    if (x === y) return 0
    if (x === null || y === null) return x === null ? 1 : -1
    return x < y ? -sign : sign
  })
}

/** parseSort reads age or -age; null if there is no such column. */
export function parseSort(text: string | null, columns: string[]): Sort | null {
  const by = text?.replace(/^-/, '')
  return by === undefined || !columns.includes(by) ? null : { by, descending: text!.startsWith('-') }
}

export function printSort({ by, descending }: Sort): string {
  return `${descending ? '-' : ''}${by}`
}
