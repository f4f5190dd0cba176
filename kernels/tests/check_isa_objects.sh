#!/bin/sh
# The objects that run on every CPU of the family must hold no instruction of a newer one: only the files of an ISA may
# name its registers. Weak symbols count as well, since the linker may keep any file's copy of an inline function.
#   check_isa_objects.sh DIR_OF_OBJECTS
# Exit status: 0 clean, 1 not, 2 wrong use, 77 objdump or nm is missing (skipped).
set -u

if [ $# -ne 1 ] || [ ! -d "$1" ]; then
  echo "usage: $0 DIR_OF_OBJECTS" >&2
  exit 2
fi
for tool in objdump nm; do
  if ! command -v "$tool" >/dev/null 2>&1; then
    echo "skipped: $tool is not installed"
    exit 77
  fi
done

found=0
bad=0
for object in $(find "$1" -name '*.o' | sort); do
  found=$((found + 1))
  case $object in
    */src/avx2/* | */src/avx512/*)
      if nm -C "$object" | grep -E ' [WVu] '; then
        echo "$object: an ISA file defines symbols that the linker may share with everybody (above)" >&2
        bad=1
      fi
      continue
      ;;
  esac
  count=$(objdump -d --no-show-raw-insn "$object" | grep -c -E '%[yz]mm[0-9]|%k[0-7]')
  if [ "$count" -ne 0 ]; then
    echo "$object: $count instructions on registers that older CPUs lack" >&2
    bad=1
  fi
done
if [ "$found" -eq 0 ]; then
  echo "no objects under $1" >&2
  exit 2
fi
[ "$bad" -eq 0 ] && echo "$found objects are clean"
exit "$bad"
