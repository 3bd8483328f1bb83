# Arrays and strings of the shell: fills, looks up, sorts by insertion, prints.
declare -A seen
declare -a order
seed=7
for ((i = 0; i < 1600; i++)); do
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    key="name-$(((seed >> 8) % 800))"
    ((seen[$key]++)) || order+=("$key")
done
text=""
for key in "${order[@]}"; do
    ((seen[$key] > 2)) && text+="$key=${seen[$key]};"
done
for ((i = 0; i < ${#order[@]}; i += 3)); do
    unset "seen[${order[i]}]"
done
echo "${#seen[@]} ${#text}"
