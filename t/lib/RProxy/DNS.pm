# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# A scripted name server over UDP on 127.0.0.1, in a process of its own. The test says what each
# name has, at any time, and sees which questions came:
#
#   my $dns = RProxy::DNS->start($t);
#   $t->server_config('RProxyResolver ' . $dns->address);
#   $dns->set('app.test', ttl => 1, A => ['127.0.0.1'], AAAA => ['::1']);
#   $dns->set('www.test', CNAME => 'app.test');
#   $dns->set('_http._tcp.test', SRV => [[10, 5, 8080, 'app.test']]);   priority, weight, port, host
#   $dns->set('app.test', code => 'SERVFAIL');          or 'REFUSED', 'NXDOMAIN'
#   $dns->set('app.test', code => 'silent');            no answer at all
#
# A name that was never set does not exist.
package RProxy::DNS;
use strict;
use warnings;
use Carp ();
use IO::Socket::INET;
use RProxy::Wait qw(wait_until);
use Socket qw(AF_INET6 inet_aton inet_pton);
use Storable ();

use constant {
    CLASS_IN    => 1,
    DEFAULT_TTL => 60,
    CHAIN_MAX   => 8,       # aliases in a row
};

my %CODE = (NOERROR => 0, SERVFAIL => 2, NXDOMAIN => 3, REFUSED => 5);
my %TYPE = (A => 1, CNAME => 5, AAAA => 28, SRV => 33);
my %TYPE_NAME = reverse %TYPE;

sub start {
    my ($class, $t) = @_;
    my $directory = $t->directory;
    my $self = bless { zone => {}, zone_file => "$directory/dns-zone",
        queries_file => "$directory/dns-queries", consumed => {} }, $class;
    $self->{socket} = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.1')
        or Carp::croak("cannot open a UDP socket: $@");
    $self->_publish;
    my $owner = $$;
    $t->background(sub {
        while (getppid == $owner) {
            my $bits = '';
            vec($bits, $self->{socket}->fileno, 1) = 1;
            $self->_answer_one if select $bits, undef, undef, 0.5;
        }
    });
    return $self;
}

sub address { return '127.0.0.1:' . $_[0]{socket}->sockport }

sub set {
    my ($self, $name, %records) = @_;
    $self->{zone}{ lc $name } = {%records};
    return $self->_publish;
}

# Renamed into place, so that the server never reads half of it.
sub _publish {
    my ($self) = @_;
    Storable::nstore($self->{zone}, "$self->{zone_file}.new");
    rename "$self->{zone_file}.new", $self->{zone_file} or die "$self->{zone_file}: $!\n";
    return $self;
}

# ---- questions that came --------------------------------------------------------------------

# How often a name was asked for; for A alone, since each lookup asks for AAAA as well. Services are
# asked for by SRV.
sub queries {
    my ($self, $name) = @_;
    open my $fh, '<', $self->{queries_file} or return 0;
    my $wanted = lc($name . ($name =~ /^_/ ? ' SRV' : ' A'));
    return scalar grep { chomp; lc $_ eq $wanted } <$fh>;
}

# Waits until the name was asked for so many more times than it has been by now.
sub wait_queries {
    my ($self, $name, $more, $seconds) = @_;
    my $wanted = $self->queries($name) + $more;
    return wait_until("$more more questions for $name", $seconds,
        sub { return $self->queries($name) >= $wanted });
}

# ---- the server -----------------------------------------------------------------------------

sub _answer_one {
    my ($self) = @_;
    my $peer = $self->{socket}->recv(my $query, 4_096) // return;
    my ($id, $flags, $count) = unpack 'nnn', $query;
    return if !defined $count || $count != 1 || $flags & 0x8000;
    my ($name, $length) = _read_name($query, 12);
    my ($type, $class) = unpack "x$length nn", $query;
    open my $fh, '>>', $self->{queries_file} or die "$self->{queries_file}: $!\n";
    syswrite $fh, "$name " . ($TYPE_NAME{$type} // $type) . "\n";
    close $fh;
    my ($code, @records) = $self->_records(lc $name, $type, $class);
    return if $code eq 'silent';
    my $response = pack('n6', $id, 0x8580 | $CODE{$code}, 1, scalar @records, 0, 0)
        . substr($query, 12, $length - 12 + 4) . join '', @records;
    $self->{socket}->send($response, 0, $peer);
    return;
}

# The response code and the records for a question, aliases followed.
sub _records {
    my ($self, $name, $type, $class) = @_;
    my $zone = Storable::retrieve($self->{zone_file});
    my @records;
    for (1 .. CHAIN_MAX) {
        my $entry = $zone->{$name} // return ('NXDOMAIN', @records);
        return ($entry->{code}, @records) if $entry->{code};
        my $ttl = $entry->{ttl} // DEFAULT_TTL;
        my $alias = $entry->{CNAME};
        if (!defined $alias) {
            my $known = $class == CLASS_IN ? $TYPE_NAME{$type} // '' : '';
            push @records, map { _record($name, $type, $ttl, $_) }
                map { $known eq 'A' ? inet_aton($_) : $known eq 'AAAA' ? inet_pton(AF_INET6, $_)
                    : pack('n3', @$_[0 .. 2]) . _name($_->[3]) }
                @{ $known =~ /^(?:A|AAAA|SRV)$/ ? $entry->{$known} // [] : [] };
            return ('NOERROR', @records);
        }
        push @records, _record($name, $TYPE{CNAME}, $ttl, _name($alias));
        $name = lc $alias;
    }
    return ('SERVFAIL');
}

sub _record {
    my ($name, $type, $ttl, $data) = @_;
    return _name($name) . pack 'nnNn/a*', $type, CLASS_IN, $ttl, $data;
}

sub _name { return join('', map { pack 'C/a*', $_ } split /\./, $_[0]) . "\0" }

# A name of a question, and the offset behind it.
sub _read_name {
    my ($bytes, $at) = @_;
    my @labels;
    while (my $length = ord substr $bytes, $at, 1) {
        push @labels, substr $bytes, $at + 1, $length;
        $at += 1 + $length;
    }
    return (join('.', @labels), $at + 1);
}

1;
