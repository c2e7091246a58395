// The label selector of a query: the picked service plus whatever was typed.

/**
 * joinSelector adds the service to a typed selector, with or without its braces. What was typed is not checked
 * here: the API explains what is wrong with it better than a page could.
 */
export function joinSelector(service: string, typed: string): string {
  let rest = typed.trim()
  if (rest.startsWith('{')) rest = rest.slice(1)
  if (rest.endsWith('}')) rest = rest.slice(0, -1)
  rest = rest.trim()
  const own = service === '' ? '' : `service_name=${JSON.stringify(service)}`
  return `{${[own, rest].filter((part) => part !== '').join(', ')}}`
}
