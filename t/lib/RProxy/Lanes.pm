# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The same virtual host twice in one httpd, for tests that compare the lanes: the case's own port is
# the engine's, a second one has RProxyEngine off.
package RProxy::Lanes;
use strict;
use warnings;

# Configures both with the same lines, and further virtual hosts [name, lines...] of both; does not
# start.
sub configure {
    my ($class, $t, $lines, @vhosts) = @_;
    my $self = bless { t => $t, ports => { engine => $t->port, pipeline => $t->listen } }, $class;
    $t->config(@$lines);
    $t->vhost($t->host, ['RProxyEngine off', @$lines], port => $self->{ports}{pipeline});
    for my $vhost (@vhosts) {
        my ($name, @own) = @$vhost;
        $t->vhost($name, \@own);
        $t->vhost($name, ['RProxyEngine off', @own], port => $self->{ports}{pipeline});
    }
    return $self;
}

sub port { return $_[0]{ports}{ $_[1] } }

# What a client gets that writes the pieces and reads to the end, in each lane: (pipeline, engine).
# Options: half => 1 ends its direction, client => { options of raw_client }.
sub answers {
    my ($self, $pieces, %options) = @_;
    return map { $self->answer($_, $pieces, %options) } qw(pipeline engine);
}

sub answer {
    my ($self, $lane, $pieces, %options) = @_;
    my $client = $self->{t}->raw_client(port => $self->{ports}{$lane}, %{ $options{client} // {} });
    for my $piece (ref $pieces ? @$pieces : $pieces) {
        $client->write($piece) or last;
    }
    $client->half_close if $options{half};
    return $self->plain($client->read_eof) . '[' . $client->closed . ']';
}

# Without what differs by nature: order of fields, dates, ports.
sub plain {
    my ($self, $text) = @_;
    $text =~ s{(HTTP/1\.\d \d{3} [^\r\n]*\r\n)((?:[^\r\n]+\r\n)*)(?=\r\n)}
        {$1 . join '', sort split /(?<=\n)/, $2}ge;
    $text =~ s/^Date: .*?\r$/Date: now\r/mg;
    my $ports = join '|', values %{ $self->{ports} };
    return $text =~ s/\b(?:$ports)\b/PORT/gr;
}

1;
