# A repository of some commits, a clone, a repack, a check.
commits=${1:-12}
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
export GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z'
git init -q -b main one && cd one || exit 1
for n in $(seq 1 "$commits"); do
    seq "$n" $((n + 400)) > "file$((n % 5)).txt"
    mkdir -p "d$((n % 3))"; seq 1 "$n" > "d$((n % 3))/n.txt"
    git add . && git commit -q -m "change $n"
done
git log --oneline | head -3
git diff --stat HEAD~3 | tail -4
cd .. && git clone -q one two 2>&1 && cd two || exit 1
git checkout -q -b side HEAD~4; echo more > new.txt; git add .; git commit -q -m side
git merge -q --no-edit main 2>&1; git rev-parse HEAD
git gc -q 2>&1; git fsck --full 2>&1 | sort
git count-objects -v | grep -E '^(count|packs|in-pack)'
git status --short --branch
