// The API's answers, read a second time and differently: what the page shows is compared with what these say.

/** tree reads flamebearer levels into nodes {name, start, total, self, level, parent}; the first is the root. */
export function tree({ names = [], levels = [] }) {
  const rows = levels.map(({ values = [] }, level) => {
    let x = 0
    return Array.from({ length: values.length / 4 }, (_, i) => {
      const [offset, total, self, name] = values.slice(4 * i, 4 * i + 4).map(Number)
      const node = { name: names[name], start: x + offset, total, self, level, parent: null }
      x = node.start + total
      return node
    })
  })
  rows.slice(1).forEach((row, i) => {
    for (const node of row) node.parent = rows[i].find((p) => p.start <= node.start && node.start < p.start + p.total)
  })
  return rows.flat()
}

function above(node) {
  const nodes = []
  for (let p = node.parent; p?.parent; p = p.parent) nodes.push(p)
  return nodes
}

/** topTable gives [name, self, total] in the order of the page: by self, then by name. */
export function topTable(nodes) {
  const table = {}
  for (const node of nodes) {
    if (node.parent === null && node.self === 0) continue
    const row = (table[`:${node.name}`] ??= [node.name, 0, 0])
    row[1] += node.self
    if (node.parent === null) row[2] += node.self
    else if (!above(node).some((p) => p.name === node.name)) row[2] += node.total
  }
  return Object.values(table).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
}

/** matching sums what lies under functions whose name contains the text. */
export function matching(nodes, text) {
  const hit = (node) => node.parent !== null && node.name.toLowerCase().includes(text.toLowerCase())
  return nodes.filter((n) => hit(n) && !above(n).some(hit)).reduce((sum, n) => sum + n.total, 0)
}

export function seriesSum({ series = [] }) {
  return series.flatMap((s) => s.points ?? []).reduce((sum, p) => sum + Number(p.value ?? 0), 0)
}
