#!/bin/sh
# SPDX-License-Identifier: MIT
# Folders are layers: an #include goes down this list, never up. One line a folder: what its files may include besides
# themselves. eventpipe.h stands alone, and every folder but shm/ may include it.
#
# The same script is run on copies of the tree with one include too many, one in each direction: it must notice them.
set -u
layers='
shm
src/base          shm
src/json          shm src/base
src/config        src/base src/json
src/store         shm src/base src/json src/config
src/store/sqlite  src/store shm src/base src/json src/config
src/idefix        shm src/base src/json src/config
src/source        shm src/base src/json src/config src/store src/idefix
src/stage         shm src/base src/json src/config
src/control       shm src/base src/json src/config src/store src/source
src/process       shm src/base src/json src/config src/store src/source src/stage src/control
src/import        src/base src/json src/config src/store src/source src/process
src/library       shm src/base src/json src/config src/store src/idefix src/source src/stage src/control src/process src/import
src/cli           shm src/base src/json src/config src/store src/source src/stage src/control src/import
supervisor        shm src/base src/json src/config src/store src/source src/stage src/control src/process src/library
'

libc=' assert.h ctype.h errno.h fcntl.h inttypes.h limits.h linux/futex.h math.h poll.h pthread.h sched.h signal.h
 stdarg.h stdatomic.h stdbool.h stddef.h stdint.h stdio.h stdlib.h string.h sys/eventfd.h sys/file.h sys/mman.h sys/stat.h
 sys/statvfs.h sys/syscall.h sys/sysmacros.h sys/types.h sys/random.h sys/resource.h sys/time.h time.h unistd.h '

# upward FILE...: prints each include that the list does not allow
upward() {
    layers=$layers libc=$libc awk '
        BEGIN {
            count = split(ENVIRON["layers"], line, "\n")
            for (i = 1; i <= count; i++) {
                messages = split(line[i], folder, " ")
                known[folder[1]] = 1
                for (j = 1; j <= messages; j++)
                    may[folder[1], folder[j]] = 1
            }
            count = split(ENVIRON["libc"], name)
            for (i = 1; i <= count; i++)
                libc[name[i]] = 1
        }
        FNR == 1 {
            own = FILENAME
            sub("/[^/]*$", "", own)
            if (FILENAME != "src/eventpipe.h" && !(own in known))
                print FILENAME ": its folder is no layer"
        }
        /^[ \t]*#[ \t]*include[ \t]*["<]/ {
            split($0, part, /["<>]/)
            header = from = part[2]
            sub("/[^/]*$", "", from)
            if ($0 ~ /</) {
                if (own == "shm" && !(header in libc))
                    print FILENAME " must not include <" header ">: shm/ uses libc alone"
                else if (header == "sqlite3.h" && own != "src/store/sqlite" && own != "src/import")
                    print FILENAME " must not include <sqlite3.h>: only src/store/sqlite and src/import may"
            } else if (FILENAME == "src/eventpipe.h") {
                print FILENAME " must stand alone"
            } else if (!(header == "src/eventpipe.h" && own != "shm") && !((own, from) in may)) {
                print FILENAME " must not include " header
            }
        }' "$@"
}
tree() { find shm src supervisor -name '*.[ch]' | LC_ALL=C sort; }

cd "${top_srcdir:-.}" || exit 99
# shellcheck disable=SC2046 # no file name has a space
found=$(upward $(tree))
[ -z "$found" ] || { echo "$found"; exit 1; }

copy=${TEST_TMPDIR:?}/copy
mkdir "$copy" && cp -R shm src supervisor "$copy" && chmod -R u+w "$copy" && cd "$copy" || exit 99
# notices FILE HEADER: whether one include more is seen, and nothing else
notices() {
    cp "$1" before
    echo "#include $2" >>"$1"
    found=$(upward "$1")
    cp before "$1"
    case $found in "$1 must not include "*) [ "$(echo "$found" | wc -l)" -eq 1 ] && return ;; esac
    echo "layers: an include of $2 in $1 was not noticed: $found"
    exit 1
}
notices shm/ring.c '"src/base/error.h"'
notices shm/ring.c '<sqlite3.h>'
notices src/base/error.c '"src/config/config.h"'
notices src/json/json.h '"src/store/store.h"'
notices src/store/store.c '"src/store/sqlite/sqlite.h"'
notices src/store/sqlite/open.c '"src/process/worker.h"'
notices src/idefix/client.c '"src/source/source.h"'
notices src/stage/stage.c '"src/source/source.h"'
notices src/process/worker.c '"src/library/manager.h"'
notices src/cli/main.c '"supervisor/supervisor.h"'
notices src/cli/queue.c '<sqlite3.h>'
