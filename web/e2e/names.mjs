// What somebody may call a function, a service or a tenant.

export const HOSTILE = `<img src=x onerror="document.title='owned'">`
