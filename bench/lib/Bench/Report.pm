# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Raw figures -> medians, ratios pair by pair, the table.
#
# Results are a list of { workload, peer, round, ...figures }. One with an error_count is invalid:
# its figures count for nothing. A cell of which fewer than half of the rounds are left is invalid.
package Bench::Report;
use strict;
use warnings;
use JSON::PP ();
use List::Util qw(sum0);

sub median {
    my @sorted = sort { $a <=> $b } grep { defined } @_;
    return undef unless @sorted;
    my $middle = @sorted >> 1;
    return @sorted % 2 ? $sorted[$middle] : ($sorted[$middle - 1] + $sorted[$middle]) / 2;
}

# The results of a workload and a peer, by round.
sub cell {
    my ($results, $workload, $peer) = @_;
    return sort { $a->{round} <=> $b->{round} }
        grep { $_->{workload} eq $workload && $_->{peer} eq $peer } @$results;
}

# Medians of the named figures, one entry per cell: { workload, peer, errors, notes, valid,
# figures }.
sub cells {
    my ($results, $workloads, $peers, @figures) = @_;
    my @cells;
    for my $workload (@$workloads) {
        for my $peer (@$peers) {
            my @cell = cell($results, $workload, $peer) or next;
            my @good = grep { !$_->{error_count} } @cell;
            push @cells, {
                workload => $workload, peer => $peer, notes => notes(@cell),
                errors => sum0(map { $_->{error_count} } @cell),
                valid => @good && 2 * @good >= @cell ? JSON::PP::true() : JSON::PP::false(),
                figures => { map { my $name = $_; $name => median(map { $_->{$name} } @good) }
                             @figures } };
        }
    }
    return \@cells;
}

# What a reader of the table must know: errors by kind, connections closed, requests unfinished.
sub notes {
    my @cell = @_;
    my %sum;
    for my $result (@cell) {
        my %count = (%{$result->{errors} // {}}, map { $_ => $result->{$_} } qw(closed unfinished));
        $sum{$_} += $count{$_} // 0 for keys %count;
    }
    my $invalid = grep { $_->{error_count} } @cell;
    return join ' ', $invalid ? "$invalid of @{[scalar @cell]} rounds invalid:" : (),
        map { "$sum{$_} $_" } grep { $sum{$_} } sort keys %sum;
}

# For each workload and peer other than the first: the median of first / peer, taken round by
# round, of each figure. Rounds in which one of the two had errors do not count; where fewer than
# half are left there is no ratio.
sub ratios {
    my ($results, $workloads, $peers, @figures) = @_;
    my ($first, @others) = @$peers;
    my @ratios;
    for my $workload (@$workloads) {
        my %ours = map { $_->{round} => $_ } cell($results, $workload, $first);
        for my $peer (@others) {
            my @theirs = cell($results, $workload, $peer);
            my @pairs = grep { $_->[0] && !$_->[0]{error_count} && !$_->[1]{error_count} }
                map { [$ours{$_->{round}}, $_] } @theirs;
            next if !@pairs || 2 * @pairs < @theirs;
            my %ratio;
            for my $name (@figures) {
                $ratio{$name} = median(map { $_->[0]{$name} / $_->[1]{$name} }
                                       grep { defined $_->[0]{$name} && $_->[1]{$name} } @pairs);
            }
            push @ratios, { workload => $workload, first => $first, peer => $peer,
                            rounds => scalar @pairs, figures => \%ratio };
        }
    }
    return \@ratios;
}

# Prints cells and ratios: @columns are [figure, title, decimals, divisor].
sub table {
    my ($cells, $ratios, $workloads, @columns) = @_;
    my $width = 4;
    for my $workload (@$workloads) {
        $width = length $workload if length $workload > $width;
    }
    my $line = sub {
        my ($workload, $what, $values, $note) = @_;
        printf "%-${width}s  %-12s%s  %s\n", $workload, $what,
            join('', map { sprintf '%13s', $_ } @$values), $note;
    };
    $line->('', '', [map { $_->[1] } @columns], '');
    for my $workload (@$workloads) {
        my $title = $workload;
        for my $cell (grep { $_->{workload} eq $workload } @$cells) {
            my @values = map {
                my ($name, undef, $decimals, $divisor) = @$_;
                my $value = $cell->{figures}{$name};
                defined $value && $cell->{valid}
                    ? sprintf("%.${decimals}f", $value / ($divisor // 1)) : '-'
            } @columns;
            $line->($title, $cell->{peer}, \@values,
                    $cell->{notes});
            $title = '';
        }
        for my $ratio (grep { $_->{workload} eq $workload } @$ratios) {
            my @values = map {
                my $value = $ratio->{figures}{$_->[0]};
                defined $value ? sprintf('x%.2f', $value) : '-'
            } @columns;
            $line->('', ": $ratio->{peer}", \@values, '');
        }
    }
}

1;
