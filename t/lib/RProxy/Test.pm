# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What test files use: Test::More, strict, warnings, behaviour() and without_lanes().
package RProxy::Test;
use strict;
use warnings;
use Carp ();
use RProxy::Case;
use RProxy::Message;
use RProxy::Wait qw(wait_until);
use Test::More;

require Exporter;
our @ISA = ('Exporter');
our @EXPORT = (@Test::More::EXPORT, qw(behaviour without_lanes wait_until));

use constant LOG_LINES => 40;

my %open;       # cases not finished, by address
my %left_out;   # lanes of no behaviour of this file

$SIG{PIPE} = 'IGNORE';
for my $signal (qw(INT TERM HUP)) {
    $SIG{$signal} = sub { exit 130 };
}

sub import {
    strict->import;
    warnings->import;
    __PACKAGE__->export_to_level(1, @_);
    return;
}

# Lanes that no behaviour of the file runs in: what they have of their own is not in what it tests.
sub without_lanes {
    my (@lanes) = @_;
    $left_out{$_} = 1 for @lanes;
    return;
}

# Lanes of this run: RPROXY_LANES=event,tls restricts them.
sub _selected {
    my ($options) = @_;
    my %except = (%left_out, map { $_ => 1 } @{ $options->{except} // [] });
    my @lanes = grep { !$except{$_} } @{ $options->{lanes} // \@RProxy::Case::LANES };
    for my $lane (@lanes) {
        Carp::croak("no lane '$lane'") unless $RProxy::Case::LANES{$lane};
    }
    return @lanes unless $ENV{RPROXY_LANES};
    my %wanted = map { $_ => 1 } split /[\s,]+/, $ENV{RPROXY_LANES};
    return grep { $wanted{$_} } @lanes;
}

# behaviour 'what must hold', lanes => [...], except => [...], sub { my ($t) = @_; ... };
# Runs the sub once in each lane, as a subtest "name [lane]". RPROXY_ONLY=regex picks by that name.
sub behaviour {
    my ($name, @options) = @_;
    my $code = pop @options;
    Carp::croak("behaviour '$name' needs a sub") unless ref $code eq 'CODE';
    my @lanes = _selected({@options});
    @lanes = grep { "$name [$_]" =~ /$ENV{RPROXY_ONLY}/ } @lanes if $ENV{RPROXY_ONLY};
    Test::More->builder->skip("$name: no lane of it is selected") unless @lanes;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    for my $lane (@lanes) {
        subtest "$name [$lane]" => sub { _run($lane, $code) };
    }
    return;
}

sub _run {
    my ($lane, $code) = @_;
    my $case = eval { RProxy::Case->new($lane) };
    if (!$case) {
        fail("the case could not be set up: $@");
        return;
    }
    $open{$case} = $case;
    my $lived = eval { $code->($case); 1 };
    fail("the test died: $@") unless $lived;
    my @problems = $case->finish;
    ok(!@problems, 'upstreams and httpd ended without trouble') or diag(join "\n", @problems);
    _show_log($case) unless Test::More->builder->is_passing;
    delete $open{$case};
    $case->remove_directory;
    return;
}

sub _show_log {
    my ($case) = @_;
    my @lines = split /\n/, $case->error_log;
    splice @lines, 0, @lines - LOG_LINES if @lines > LOG_LINES;
    diag(join "\n", 'error log of httpd:', map { "  $_" } @lines);
    diag("kept in " . $case->directory) if $ENV{RPROXY_KEEP};
    return;
}

END {
    local $?;
    for my $case (values %open) {
        next if $case->{owner} != $$;
        $case->finish;
        $case->remove_directory;
    }
}

1;
