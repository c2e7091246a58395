// Deletions that were asked for, and what of them is still in the bucket.

import { type Values } from './table.ts'
import { between, count, enumName, moment, type WireNumber } from './wire.ts'

/** WireDeletions is kiln.admin.v1.ListDeletionsResponse as proto3 JSON. */
export interface WireDeletions {
  deletions?: WireDeletion[]
}

interface WireDeletion {
  id?: string
  tenant?: string
  service?: string
  selector?: string
  state?: WireNumber
  requested?: WireNumber
  finished?: WireNumber
  objects?: WireNumber
  remaining?: WireNumber
}

export interface Deletion {
  id: string
  state: string
  tenant: string
  /** null: every service. Empty is the service without a name. */
  service: string | null
  /** Empty: all series. */
  selector: string
  objects: number
  /** How many of the objects are still in the bucket. */
  remaining: number
  /** Milliseconds since it was asked for. */
  age: number | null
  /** Milliseconds until it was finished; null while it is not. */
  took: number | null
}

/** readDeletions gives them newest first. */
export function readDeletions(wire: WireDeletions, now: number): Deletion[] {
  return (wire.deletions ?? []).map((d) => readDeletion(d, now)).reverse()
}

function readDeletion(d: WireDeletion, now: number): Deletion {
  const requested = moment(d.requested)
  return {
    id: d.id ?? '',
    state: enumName(d.state, 'DELETION_STATE'),
    tenant: d.tenant ?? '',
    service: d.service ?? null,
    selector: d.selector ?? '',
    objects: count(d.objects),
    remaining: count(d.remaining),
    age: between(requested, now),
    took: between(requested, moment(d.finished)),
  }
}

/** What goes on comes before what is finished. */
const STATES = ['hidden', 'finished']

export const deletionValues = {
  id: (d) => d.id,
  state: (d) => STATES.indexOf(d.state),
  tenant: (d) => d.tenant,
  service: (d) => d.service,
  selector: (d) => d.selector || null,
  objects: (d) => d.objects,
  remaining: (d) => d.remaining,
  age: (d) => d.age,
  took: (d) => d.took,
} satisfies Values<Deletion>
