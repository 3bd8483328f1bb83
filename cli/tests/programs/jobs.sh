# Job control without naming process numbers.
set -m
sleep 0.2 & sleep 0.1 &
wait; echo "both $?"
(exit 3) & wait $!; echo "third $?"
sleep 30 & kill -TERM %%; wait %% 2>/dev/null; echo "killed $?"
(trap 'echo caught; exit 7' USR1; kill -USR1 $BASHPID; sleep 30) & wait $!; echo "trap $?"
sleep 30 & kill -STOP %%; sleep 0.1; jobs %% | tr -s ' ' | cut -d' ' -f2-; kill -CONT %%; kill %%
wait %% 2>/dev/null; echo "stopped, continued, killed $?"
for i in 1 2 3 4 5 6 7 8; do (exit "$i") & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid"; printf '%s ' $?; done; echo
