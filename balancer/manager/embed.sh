#!/bin/sh
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0
#
# Writes a C file with the files that the manager's page needs, as rp_manager_page.h declares it.
#
#   embed.sh FILE... >rp_manager_assets.c
set -eu

echo '/* Made by embed.sh. */'
echo '#include "balancer/rp_manager_page.h"'
number=0
table=
for file in "$@"; do
    number=$((number + 1))
    echo
    echo "static const unsigned char data_$number[] = {"
    od -An -v -tx1 "$file" | sed 's/ *\([0-9a-f][0-9a-f]\)/0x\1,/g'
    echo '};'
    sum=$(cksum <"$file" | tr ' ' -)
    table="$table    { \"${file##*/}\", \"\\\"$sum\\\"\", data_$number, sizeof(data_$number) },
"
done
echo
echo 'const rp_manager_asset rp_manager_assets[] = {'
printf %s "$table"
echo '    { NULL, NULL, NULL, 0 }'
echo '};'
