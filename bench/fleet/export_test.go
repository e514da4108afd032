package fleet

// Features names the 18 numeric fields of a record, in its order.
func Features() []string {
	names := make([]string, fields)
	for i, f := range schema {
		names[i] = f.name
	}
	return names
}
