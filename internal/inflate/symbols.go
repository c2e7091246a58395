package inflate

import "encoding/binary"

// fixed makes the tables of the code that needs none to be sent.
func (d *Decoder) fixed() {
	lengths := d.lengths[:maxLiterals]
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	build(d.literals[:], literalBits, lengths, literalEntry)
	lengths = d.lengths[:maxDistances]
	for i := range lengths {
		lengths[i] = 5
	}
	build(d.distances[:], distanceBits, lengths, distanceEntry)
}

// dynamic reads the codes of a block and makes their tables.
func (d *Decoder) dynamic() error {
	d.refill()
	literals, distances, n := 257+d.take(5), 1+d.take(5), 4+d.take(4)
	if literals > dynLiterals || distances > dynDistances {
		return d.corrupt("number of codes")
	}
	var precode [precodes]uint8
	for i := range n {
		if i%8 == 0 {
			d.refill()
		}
		precode[precodeOrder[i]] = uint8(d.take(3))
	}
	if !build(d.precode[:], precodeBits, precode[:], precodeEntry) {
		return d.corrupt("code of code lengths")
	}
	if err := d.readLengths(d.lengths[:literals+distances]); err != nil {
		return err
	}
	if !build(d.literals[:], literalBits, d.lengths[:literals], literalEntry) {
		return d.corrupt("code of literals")
	}
	if !build(d.distances[:], distanceBits, d.lengths[literals:literals+distances], distanceEntry) {
		return d.corrupt("code of distances")
	}
	return nil
}

// readLengths reads the lengths of codes, which are coded themselves.
func (d *Decoder) readLengths(lengths []uint8) error {
	for i := 0; i < len(lengths); {
		d.refill()
		e := d.precode[d.bits&(1<<precodeBits-1)]
		if e&isSpecial != 0 || d.n < 0 {
			return d.corrupt("code length")
		}
		d.take(int(e & 15))
		symbol := e >> 16
		if symbol < 16 {
			lengths[i] = uint8(symbol)
			i++
			continue
		}
		value, repeat := uint8(0), 0
		switch symbol {
		case 16:
			if i == 0 {
				return d.corrupt("repetition of no length")
			}
			value, repeat = lengths[i-1], 3+d.take(2)
		case 17:
			repeat = 3 + d.take(3)
		default:
			repeat = 11 + d.take(7)
		}
		if repeat > len(lengths)-i {
			return d.corrupt("repetition of a length")
		}
		for range repeat {
			lengths[i] = value
			i++
		}
	}
	return nil
}

// symbols decodes literals and copies until the end of the block.
//
// All state is in variables of its own, which then live in registers. The 56 bits of a refill are enough for three literals
// that the first table knows, of 11 bits each at most, or two and a length, of 20; a distance takes 28 more. The steps are
// written out, literals thrice, so that nothing has to leave its register.
func (d *Decoder) symbols() error {
	src, out, size, end := d.src, d.out, d.size, d.end
	pos, bits, n, o := d.pos, d.bits, d.n, d.o
	literals, distances := &d.literals, &d.distances
	failure := ""
	for o <= size {
		if pos <= end {
			bits |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
			pos += (63 - n) >> 3
			n |= 56
		} else if n < 0 {
			break
		}
		e := literals[bits&(1<<literalBits-1)]
		if e&isLiteral != 0 {
			out[o], o = byte(e>>8), o+1
			bits >>= e & 63
			n -= int(e & 63)
			e = literals[bits&(1<<literalBits-1)]
			if e&isLiteral != 0 {
				out[o], o = byte(e>>8), o+1
				bits >>= e & 63
				n -= int(e & 63)
				e = literals[bits&(1<<literalBits-1)]
				if e&isLiteral != 0 {
					out[o], o = byte(e>>8), o+1
					bits >>= e & 63
					n -= int(e & 63)
					continue
				}
			}
		}
		if e&isSpecial != 0 {
			if e&isEnd == 0 && e != noCode {
				bits >>= literalBits
				n -= literalBits
				e = literals[(e>>16+uint32(bits)&(1<<(e>>8&15)-1))&(literalTable-1)]
			}
			if e&isLiteral != 0 {
				out[o], o = byte(e>>8), o+1
				bits >>= e & 63
				n -= int(e & 63)
				continue
			}
			if e&isEnd != 0 {
				d.pos, d.bits, d.n, d.o = pos, bits>>(e&63), n-int(e&63), o
				return nil
			}
			if e&isSpecial != 0 {
				failure = "literal"
				break
			}
		}
		length := int(e>>16) + int(bits>>(e>>8&15)&(1<<(e>>12&15)-1))
		bits >>= e & 63
		n -= int(e & 63)
		if n < 28 && pos <= end {
			bits |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
			pos += (63 - n) >> 3
			n |= 56
		}
		e = distances[bits&(1<<distanceBits-1)]
		if e&isSpecial != 0 {
			if e != noCode {
				bits >>= distanceBits
				n -= distanceBits
				e = distances[(e>>16+uint32(bits)&(1<<(e>>8&15)-1))&(distanceTable-1)]
			}
			if e&isSpecial != 0 {
				failure = "distance"
				break
			}
		}
		from := o - int(e>>16) - int(bits>>(e>>8&15)&(1<<(e>>12&15)-1))
		bits >>= e & 63
		n -= int(e & 63)
		if from < 0 {
			failure = "distance that goes back too far"
			break
		}
		stop := o + length
		// A pattern shorter than eight bytes is doubled until it is not.
		for o-from < 8 && o < stop {
			binary.LittleEndian.PutUint64(out[o:], binary.LittleEndian.Uint64(out[from:]))
			o += o - from
		}
		// Most copies are short: sixteen bytes at a time cost no more than eight.
		for o < stop {
			to, at := out[o:o+16:o+16], out[from:from+16:from+16]
			binary.LittleEndian.PutUint64(to, binary.LittleEndian.Uint64(at))
			binary.LittleEndian.PutUint64(to[8:], binary.LittleEndian.Uint64(at[8:]))
			o, from = o+16, from+16
		}
		o = stop
	}
	d.pos, d.bits, d.n, d.o = pos, bits, n, o
	return d.stopped(failure)
}

// stopped says why symbols have come to an end that is not that of the block.
func (d *Decoder) stopped(failure string) error {
	switch {
	case failure != "":
		return d.corrupt(failure)
	case d.n < 0:
		return d.cut()
	default:
		return d.long()
	}
}
