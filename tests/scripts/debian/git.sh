# A repository with many commits: made, checked, cloned, packed, branched, merged.
export HOME=/root GIT_AUTHOR_DATE='2001-02-03T04:05:06Z' GIT_COMMITTER_DATE='2001-02-03T04:05:06Z'
git config --global user.name n; git config --global user.email e; git config --global init.defaultBranch main
cd /tmp; git init -q a; cd a
for i in $(seq 60); do mkdir -p d$((i % 7)); seq $i $((i * 9)) >d$((i % 7))/f$i; ln -sf f$i d$((i % 7))/l; git add -A; git commit -qm "$i"; done
git status --short; git rev-parse HEAD; git fsck 2>&1
git checkout -qb side HEAD~20; echo side >side; git add side; git commit -qm side
git merge -q --no-edit main; git rev-parse HEAD^{tree}; git log --oneline | wc -l
cd ..; git clone -q a b; cd b; git gc -q; git fsck 2>&1; git count-objects -v | grep -e ^in-pack -e ^packs -e ^count
git rev-parse HEAD; diff -r --no-dereference -x .git ../a . && echo same
git status --short; echo x >>side; git status --short; git stash -q; git status --short; git stash pop -q; git diff | tail -1
git archive HEAD | tar -t | wc -l; git grep -c 99 | wc -l
