# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What httpd -t says of lines that are put where the case's method $place puts them.
package RProxy::Directives;
use strict;
use warnings;
use Exporter 'import';
use Test::More;

our @EXPORT = qw(accepted_in refused_in);

sub _checked {
    my ($t, $place, @lines) = @_;
    $t->clear_config;
    $t->$place(@lines);
    return $t->httpd_test;
}

sub accepted_in {
    my ($t, $place, @lines) = @_;
    my ($code, $output) = _checked($t, $place, @lines);
    local $Test::Builder::Level = $Test::Builder::Level + 2;
    return is($code, 0, join ' / ', @lines) || diag($output);
}

# The message must be there, and httpd must name the line that matches $at.
sub refused_in {
    my ($t, $place, $lines, $message, $at) = @_;
    my ($code, $output) = _checked($t, $place, @$lines);
    local $Test::Builder::Level = $Test::Builder::Level + 2;
    subtest 'refused: ' . join(' / ', @$lines) => sub {
        isnt($code, 0, 'exit code');
        like($output, $message);
        unlike($output, qr/Syntax OK/);
        my $number = $t->config_line($at);
        my $file = quotemeta $t->conf_file;
        like($output, qr/line $number of $file|$file:$number\b/, "names line $number");
    };
    return;
}

1;
