// Numbers as proto3 JSON writes them: 64 bits as text, and nothing where they are 0.

export type WireNumber = string | number

export function count(value: WireNumber | undefined): number {
  return Number(value ?? 0)
}

/** moment reads Unix nanoseconds into milliseconds; null if it has not come. */
export function moment(nanos: WireNumber | undefined): number | null {
  return count(nanos) === 0 ? null : count(nanos) / 1e6
}

/** between is the time from one moment to the next in milliseconds, never negative: clocks differ a little. */
export function between(start: number | null, end: number | null): number | null {
  return start === null || end === null ? null : Math.max(0, end - start)
}

/** enumName reads JOB_STATE_WAITING of JOB_STATE as waiting. */
export function enumName(value: WireNumber | undefined, type: string): string {
  return String(value ?? 'unspecified').replace(`${type}_`, '').toLowerCase()
}
