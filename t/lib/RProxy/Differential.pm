# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Holds conversations (RProxy::Conversations) in two lanes, a reference and the engine, and compares
# what clients and upstreams saw. A difference counts if it shows each time the conversation is held
# alone, and each kind of difference is shown once, with the smallest conversation that has it.
package RProxy::Differential;
use strict;
use warnings;
use Test::More;
use RProxy::Conversations;
use RProxy::Wait qw(seconds);

use constant {
    QUIET => 0.3,      # seconds of a stall at first
    SURE  => 1.5,      # when a difference is looked at again, alone
    AGAIN => 3,        # it must show so often
    SHOWN => 25,       # differences
    LINES => 40,       # of each
};

# Arguments:
#   lanes      the places of either lane, the reference first; a place's kind says what its virtual
#              host has
#   saw        what was seen, as text: saw(result, place)
#   accepted   whether a difference is one of the accepted: accepted([both texts], conversation)
#   smaller    all conversations that have one thing less: smaller(conversation)
#   text       a conversation as text
#   lane_names for what is shown
sub new {
    my ($class, %args) = @_;
    return bless {%args}, $class;
}

# Holds them in both lanes at once; what was seen: [reference, other] for each.
sub hold {
    my ($self, $kind, $conversations, $quiet) = @_;
    my @places = map { [grep { $_->{kind} == $kind } @$_] } @{ $self->{lanes} };
    return map { [map { $self->seen(@$_) } @$_] }
        RProxy::Conversations->run(\@places, $conversations, seconds($quiet));
}

sub seen {
    my ($self, $place, $result) = @_;
    my $text = $self->{saw}->($result, $place);
    $text =~ s/\b$place->{upstream_port}\b/UPSTREAM/g;
    $text =~ s/\b$place->{port}\b/PORT/g;
    return $text;
}

# What was seen if it differs each time.
sub differs {
    my ($self, $kind, $conversation) = @_;
    for (1 .. AGAIN) {
        my ($both) = $self->hold($kind, [$conversation], SURE);
        return undef if $both->[0] eq $both->[1];
        return $both if $_ == AGAIN;
    }
    return;
}

# Holds all of them, each with one of the kinds in turn. Shows what differs, and returns how many
# kinds of differences there are.
sub kinds_of_difference {
    my ($self, $kinds, @conversations) = @_;
    my @different;
    for my $kind (0 .. $kinds - 1) {
        my @some = map { $conversations[$_] } grep { $_ % $kinds == $kind } 0 .. $#conversations;
        my @both = $self->hold($kind, \@some, QUIET);
        push @different, map { [$kind, $some[$_]] }
            grep { $both[$_][0] ne $both[$_][1] && !$self->{accepted}->($both[$_], $some[$_]) }
            0 .. $#some;
    }
    note(scalar(@different) . ' of ' . @conversations . ' differ at first sight');
    my (%class, $unsteady);
    for (@different) {
        my ($kind, $conversation) = @$_;
        my $both = $self->differs($kind, $conversation);
        if (!$both || $self->{accepted}->($both, $conversation)) {
            $unsteady++;
            next;
        }
        push @{ $class{ class_of($both) } }, [$kind, $conversation];
    }
    note(($unsteady // 0) . ' of them do not when they are alone');
    return $self->show_classes(values %class);
}

sub show_classes {
    my ($self, @classes) = @_;
    my ($shown, $count) = (0, 0);
    for my $same (sort { @$b <=> @$a } @classes) {
        last if $shown++ >= SHOWN;
        my %length = map { $_ => length $self->{text}->($_->[1]) } @$same;
        my ($shortest) = sort { $length{$a} <=> $length{$b} } @$same;
        # Alone it may turn out to be one of those that are accepted.
        my ($conversation, $both) = $self->reduce(@$shortest);
        next if $self->{accepted}->($both, $conversation);
        $count++;
        $self->show($conversation, $both, scalar @$same);
    }
    return $count;
}

# Leaves things out as long as some difference stays that is not accepted.
sub reduce {
    my ($self, $kind, $conversation) = @_;
    my $both = $self->differs($kind, $conversation) // ['', ''];
    my $index = 0;
    while (defined(my $less = ($self->{smaller}->($conversation))[$index])) {
        my ($once) = $self->hold($kind, [$less], QUIET);
        my $still = $once->[0] ne $once->[1] && $self->differs($kind, $less);
        if ($still && !$self->{accepted}->($still, $less)) {
            ($conversation, $both) = ($less, $still);
        }
        else {
            $index++;
        }
    }
    return ($conversation, $both);
}

# What differs, by lines.
sub lines_of {
    my ($both) = @_;
    my ($off, $auto) = map { my %count; $count{$_}++ for split /\n/; \%count } @$both;
    my @lines = ((map { "- $_" } sort grep { ($off->{$_} // 0) > ($auto->{$_} // 0) } keys %$off),
        (map { "+ $_" } sort grep { ($auto->{$_} // 0) > ($off->{$_} // 0) } keys %$auto));
    return @lines;
}

# The class of a difference: what kinds of lines differ.
sub class_of {
    my ($both) = @_;
    my %kinds = map { $_ => 1 } map {
        m{^(. <<) (?:HTTP/1.\d )?(.*)} ? "$1 $2" : m{^(. >>)} ? $1 : m{^(. \[.*\])} ? $1
            : m{^(. [a-z-]+:)} ? $1 : ();
    } lines_of($both);
    return join "\n", sort keys %kinds;
}

sub printable {
    my ($text) = @_;
    $text =~ s/(.)\1{40,}/"$1\{" . length($&) . '}'/ges;
    $text =~ s/(The quick brown fox.{20}).{30,}?(?=[\r\n<]|\z)/$1.../gs;
    $text =~ s/\r\n/\\r\\n\n/g;
    return $text =~ s/([^\x20-\x7e\n])/sprintf '\x%02x', ord $1/ger;
}

sub shortened {
    my (@lines) = @_;
    splice @lines, LINES, @lines, '...' if @lines > LINES;
    return printable(join "\n",
        map { length > 160 ? substr($_, 0, 160) . '... ' . length . ' bytes' : $_ } @lines);
}

sub show {
    my ($self, $conversation, $both, $count) = @_;
    my @answers = map {
        $_ ? 'answer: ' . printable($_->{bytes}) . " [$_->{then}]" : 'answer: usual';
    } @{ $conversation->{answers} };
    @answers = () if !grep { $_ } @{ $conversation->{answers} };
    diag(join "\n", '', '=' x 80, "difference, $count times:",
        printable($self->{text}->($conversation)), @answers,
        '-' x 40 . " $self->{lane_names}", shortened(lines_of($both)));
    return;
}

# ---- what was seen --------------------------------------------------------------------------

# Lines as "name: value" each with the name in lower case.
sub fields_of { return map { s/^([^:]*)/lc $1/er } @_ }

# A head's first line and its fields.
sub head_of {
    my ($head) = @_;
    my ($line, @fields) = split /\r\n/, $head;
    return ($line // '', fields_of(@fields));
}

# What the upstream got. Accepted in every lane: a field that stands twice reaches the upstream as
# one from httpd's pipeline, joined by a comma, also in trailers. (The engine leaves it as it is,
# which is right for Cookie, too.)
sub upstream_saw {
    my ($request) = @_;
    my ($line, @fields) = head_of($request->{head});
    return join "\n", ">> $line", sort(joined(grep { !/^x-request-id:/ } @fields)),
        "\n$request->{body}", sort(joined(fields_of(split /\r\n/, $request->{trailers} // '')));
}

sub joined {
    my (@fields) = @_;
    my (%value, @names);
    for (@fields) {
        my ($name, $value) = /^([^:]*):[ \t]*(.*)/s;
        push @names, $name if !$value{$name};
        push @{ $value{$name} }, $value;
    }
    return map { "$_: " . join ', ', @{ $value{$_} } } @names;
}

# A response's fields, sorted. Accepted in every lane: Vary in a response loses in the pipeline what
# it names twice.
sub response_fields {
    my (@fields) = @_;
    my %seen;
    s/^date: (?!.* 2000 ).*/date: now/ for @fields;
    return grep { !/^vary:/ || !$seen{$_}++ } sort @fields;
}

1;
