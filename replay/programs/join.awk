# Groups the lines by their first word, then joins the groups with their neighbours.
{ n[$1]++; sum[$1] += length($0); last[$1] = $0 }
NR % 5 == 0 { kept[NR] = $0 }
END {
    for (word in n) {
        other = substr(word, 1, length(word) - 1)
        if (other in n) pairs++
        if (n[word] > 3) text = last[word]
    }
    for (i = NR; i > 0; i--) if (i in kept) chars += length(kept[i])
    print length(n), pairs, chars, text
}
