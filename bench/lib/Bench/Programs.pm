# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Where the programs are: installed ones, and the bench's own in C, compiled into a directory.
package Bench::Programs;
use strict;
use warnings;

my @tls = ('-lssl', '-lcrypto');

# Our own: name => libraries.
my %own = (slow_backend => ['-lm'], load => [], ws_idle => [], body_client => [], idle => [],
           beside => [], idle_http2 => [@tls], steady => [@tls], hostile => [@tls],
           soak_backend => ['-pthread'],
           soak_client => ['-pthread', @tls]);

# The path of an installed program, the first of its names that is found; undef: not installed.
# An environment variable of the first name in capitals (HTTPD=/usr/local/bin/httpd) overrides.
sub find {
    my @names = @_;
    my $override = $ENV{uc $names[0]};
    return -x $override ? $override : undef if $override;
    for my $name (@names) {
        for my $dir (split(/:/, $ENV{PATH}), qw(/usr/sbin /usr/local/sbin /sbin)) {
            return "$dir/$name" if -f "$dir/$name" && -x _;
        }
    }
    return undef;
}

# As find, but the bench cannot go on without it.
sub need {
    my @names = @_;
    return find(@names)
        // die "bench: $names[0] is not installed; `build-aux/install-deps bench` installs it\n";
}

# Compiles our programs from $source into $bin: the named ones, or all that need no TLS and are not
# the soak's.
sub compile {
    my ($source, $bin, @names) = @_;
    my $cc = $ENV{CC} // need('cc', 'gcc', 'clang');
    for my $name (@names ? @names : sort grep { !/^soak/ && !uses_tls($_) } keys %own) {
        system(split(' ', $cc), qw(-std=c11 -O2 -Wall), '-o', "$bin/$name", "$source/$name.c",
               @{$own{$name}}) == 0
            or die "bench: cannot compile $name.c\n";
    }
}

sub uses_tls { return scalar grep { $_ eq '-lssl' } @{$own{$_[0]}} }

# The first line a program prints about its version.
sub version {
    my ($program, @options) = @_;
    my ($line) = grep { /\d\.\d/ } split /\n/, `'$program' @options 2>&1`;
    $line //= 'unknown';
    $line =~ s/^Server version: //;
    return $line;
}

1;
