// Profile types as the API names them, and the catalogue of services the pickers offer.

export interface ProfileType {
  id: string
  kind: string
  sampleType: string
  unit: string
}

/** parseProfileType reads kind:sample type:unit:period type:period unit. */
export function parseProfileType(id: string): ProfileType {
  const [kind = '', sampleType = '', unit = ''] = id.split(':')
  return { id, kind, sampleType, unit }
}

export function profileTypeLabel(type: ProfileType): string {
  return type.sampleType === '' || type.sampleType === type.kind ? type.kind : `${type.kind} · ${type.sampleType}`
}

/** inCores tells whether values per second of this type are processor cores. */
export function inCores(type: ProfileType): boolean {
  return type.sampleType === 'cpu' && type.unit === 'nanoseconds'
}

/** Catalogue maps each service to the ids of its profile types; both sorted. */
export type Catalogue = Map<string, string[]>

export interface WireLabels {
  labels?: { name?: string; value?: string }[]
}

export function catalogue(labelsSet: WireLabels[]): Catalogue {
  const types = new Map<string, Set<string>>()
  for (const { labels = [] } of labelsSet) {
    const value = (name: string) => labels.find((l) => l.name === name)?.value ?? ''
    const service = value('service_name')
    const type = value('__profile_type__')
    if (type === '') continue
    if (!types.has(service)) types.set(service, new Set())
    types.get(service)!.add(type)
  }
  const services = [...types.keys()].sort()
  return new Map(services.map((s) => [s, [...types.get(s)!].sort()]))
}

/** defaultType is CPU time where there is any, otherwise the first type. */
export function defaultType(ids: string[]): string {
  return ids.find((id) => id.startsWith('process_cpu:cpu:')) ?? ids.find((id) => id.startsWith('process_cpu:')) ?? ids[0] ?? ''
}
