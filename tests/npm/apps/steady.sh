echo "bash $1 $COLOR"
while :; do read -r -t 3600 _ || :; done
