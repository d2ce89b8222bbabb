#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The documentation is complete: directives, message ids, variables and keys of the code are the
# ones that it describes, and its links lead somewhere.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use RProxy::Platform;
use Test::More;

my $root = RProxy::Platform::source_directory();

sub slurp {
    my ($file) = @_;
    open my $fh, '<', $file or die "$file: $!\n";
    local $/;
    return scalar readline $fh;
}

# Each different thing that the pattern captures, sorted.
sub all {
    my ($text, $pattern) = @_;
    my %found = map { $_ => 1 } $text =~ /$pattern/g;
    return [sort keys %found];
}

# (a, b, c, d) as [a, b], [c, d].
sub pairs_of { return map { [@_[2 * $_, 2 * $_ + 1]] } 0 .. $#_ / 2 }

my @pages = glob "$root/docs/*.md";
my $docs = join "\n", map { slurp($_) } @pages;
my $code = join "\n", map { slurp($_) } map { glob "$root/$_" } '*.c', 'rproxy/*.c', 'rproxy/*/*.c',
    'balancer/*.c';

is_deeply(all($docs, qr/^## (RProxy\w+)$/m),
    all(join('', map { slurp($_) } glob "$root/mod_*.c"), qr/AP_INIT_\w+\("<?(\w+)"/),
    'each directive has its section');

my $messages = slurp("$root/docs/messages.md");
is_deeply(all($messages, qr/<a id="rp\d+"><\/a>(RP\d{4}) /),
    [grep { $_ ne 'RP0100' } @{ all($code, qr/\b(RP0\d{3})\b/) }], 'each message is explained');
is_deeply([map { lc } @{ all($messages, qr/<a id="rp\d+"><\/a>(RP\d{4}) /) }],
    all($messages, qr/<a id="(rp\d+)">/), 'under an anchor of its own name');
my ($reasons) = $messages =~ /^## Reasons of failed requests$(.*?)^## /ms;
is_deeply(all($reasons, qr/RP0\d{3} \| `([\w-]+)` \|/),
    [sort { $a cmp $b } grep { $_ ne 'none' }
            slurp("$root/rproxy/rp_reason.c") =~ /\{\s*"([\w-]+)", "\w*", \d+, "RP/g],
    'each reason has its line');

my $logging = slurp("$root/docs/logging-and-status.md");
is_deeply(all($logging, qr/^\| `(rproxy-[\w-]+)` \|/m),
    all(slurp("$root/rproxy/pipeline/rp_report.c"), qr/"(rproxy-[\w-]+)"/), 'each variable');
is_deeply(all($logging, qr/`RProxy((?!Error|Timeout)\w+)`/),
    all(slurp("$root/rproxy/pipeline/rp_stats.c"), qr/\{ RP_STAT_\w+, "(\w+)"/), 'each status key');

my $metrics = slurp("$root/docs/metrics.md");
is_deeply([sort map { join ' ', @$_ } pairs_of($metrics =~ /^\| `(rproxy_\w+)` \| (\w+) \|/mg)],
    [sort map { lc join ' ', @$_ } pairs_of($code =~ /"(rproxy_\w+)", RPROXY_(\w+),/g)],
    'each family of metrics, and its type');

for my $page (@pages, "$root/README.md", "$root/examples/README.md") {
    my ($directory) = $page =~ m{^(.*)/};
    my @broken;
    for my $link (slurp($page) =~ /\]\(([^)\s]+)\)/g) {
        my ($file, $anchor) = $link =~ /^([^#]*)#?(.*)$/;
        my $target = $file eq '' ? $page : "$directory/$file";
        if (!-e $target) {
            push @broken, $link;
        }
        elsif ($anchor ne '') {
            my $text = slurp($target);
            my %anchors = map { $_ => 1 } $text =~ /<a id="([^"]+)">/g;
            for my $heading ($text =~ /^#+ (.*)$/mg) {
                $anchors{ lc($heading =~ s/[^\w -]//gr) =~ s/ /-/gr } = 1;
            }
            push @broken, $link unless $anchors{$anchor};
        }
    }
    is_deeply(\@broken, [], 'links of ' . substr($page, 1 + length $root));
}

done_testing;
