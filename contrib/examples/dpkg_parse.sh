#!/bin/sh
# SPDX-License-Identifier: MIT
# An exec stage in plain sh: finds the action and the package in a line of /var/log/dpkg.log, such as
#   2026-05-20 10:11:12 status installed libc6:amd64 2.36-9
# and puts them into the event's context. Lines of other files get the action "other".
#
# The line comes as the event's payload, a JSON string. Only the words at its beginning are looked at, and only words
# that are the same in JSON and in plain text are taken.
set -f

while IFS= read -r line; do
    text=${line#*\"payload\":\"}
    [ "$text" != "$line" ] || text=
    text=${text%%\"*}
    # shellcheck disable=SC2086 # is to be split into words
    set -- $text
    action=other package=
    case ${1-}:${3-} in
    [0-9][0-9][0-9][0-9]-[0-9]*-[0-9]*:status) action=${4-} package=${5-} ;;
    [0-9][0-9][0-9][0-9]-[0-9]*-[0-9]*:startup) action=startup ;;
    [0-9][0-9][0-9][0-9]-[0-9]*-[0-9]*:?*) action=$3 package=${4-} ;;
    esac
    case $action in *[!A-Za-z0-9-]*) action=other ;; esac
    case $package in *[!A-Za-z0-9:.+~_-]*) package= ;; esac
    printf '{"processed":true,"context":{"action":"%s","package":"%s"}}\n' "$action" "$package"
done
