# Pipelines, redirections, a here document, a subshell and process substitution.
seq 1 5000 | awk '{ print $1 % 97 }' | sort -n | uniq -c | sort -rn | head -5
echo one two three | tr ' ' '\n' | while read -r word; do echo "[$word]"; done
{ echo out; echo err >&2; } 2>&1 | sort
cat <<END | sed 's/^/> /'
here is $((6 * 7))
END
diff <(seq 1 10) <(seq 1 11)
( exit 5 ); echo "subshell $?"
seq 1 100000 | head -1
echo "pipe status ${PIPESTATUS[*]}"
