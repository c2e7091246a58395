package flamegraph

// Function is what one function weighs.
type Function struct {
	Name string
	// Self is the weight of stacks that end in the function.
	Self int64
	// Total is the weight of stacks that have the function anywhere: however often it calls itself, a
	// stack counts once.
	Total int64
}

// Functions returns the functions of t in the order of their names. The weight of the root is nobody's.
func Functions(t *Tree) []Function {
	functions := make([]Function, len(t.Names))
	for i, name := range t.Names {
		functions[i].Name = name
	}
	totals := t.Totals(nil)
	onPath := make([]uint32, len(t.Names))
	walk(t.Parents, func(n uint32) {
		if n == 0 {
			return
		}
		name := t.NodeNames[n]
		functions[name].Self += t.Self[n]
		if onPath[name] == 0 {
			functions[name].Total += totals[n]
		}
		onPath[name]++
	}, func(n uint32) {
		if n != 0 {
			onPath[t.NodeNames[n]]--
		}
	})
	return functions
}
