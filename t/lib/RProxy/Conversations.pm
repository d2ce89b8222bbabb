# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Many scripted conversations through the proxy at once, in one process that plays all clients and
# all upstreams: thousands of them in seconds. A place is a port of httpd whose route leads to an
# upstream port that is served here; it has one conversation at a time, so that whatever arrives at
# the upstream belongs to it.
#
# A conversation is a hash:
#   pieces   what the client writes, one write each
#   end      'sentinel' (default): a last request that asks to close follows, so the end comes by
#            itself; 'half': the client ends its direction behind the pieces; 'reset': RST; 'wait':
#            nothing
#   answers  what the upstream answers to its first, second ... request: hashes with bytes (head and
#            body; {PORT} becomes the upstream's), head_only (the bytes for HEAD), and
#            then => close | reset | tunnel. All other requests get DEFAULT_ANSWER. A request with
#            X-Stream: N gets the Nth. {ACCEPT} becomes what Sec-WebSocket-Key asks for.
#   continue true: the upstream asks for the body (100) where the request has Expect
#   player   a class that plays the client in place of pieces and end: new(conversation, out), out
#            being the list of pieces to send; received(\bytes, closed) takes what has come;
#            stalled() does what a client does that waits no longer; is_over()
#
# run() gives as the result: client (bytes received), closed (eof, reset, stuck), stalled (how
# often nothing moved any more, whereupon the client ended its direction, then left), player, and
# requests: [{ head, body, whole, closed }] as the upstream got them.
package RProxy::Conversations;
use strict;
use warnings;
use Digest::SHA qw(sha1_base64);
use Errno qw(EAGAIN EINPROGRESS EINTR);
use IO::Socket::IP;
use RProxy::Ports;
use RProxy::Wait qw(now seconds);
use Socket qw(IPPROTO_TCP INADDR_LOOPBACK PF_INET SHUT_WR SOCK_STREAM SOL_SOCKET SO_LINGER SOMAXCONN
    TCP_CORK TCP_NODELAY pack_sockaddr_in);

use constant {
    SENTINEL       => "GET /the-end HTTP/1.1\r\nHost: www.example.test\r\n"
        . "Connection: close\r\n\r\n",
    SENTINEL_PATH  => '/the-end',
    TUNNEL_END     => '/the-end HTTP/1.1',
    DEFAULT_ANSWER => {
        bytes => "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n"
            . "upstream\n",
        head_only => "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n",
    },
    CONTINUE       => "HTTP/1.1 100 Continue\r\n\r\n",
    WEBSOCKET_GUID => '258EAFA5-E914-47DA-95CA-C5AB0DC85B11',
    READ           => 262_144,
};

# Opens the upstream's port of a place; port() is httpd's, upstream_port() ours.
sub new_place {
    my ($class, $port) = @_;
    my $upstream_port = RProxy::Ports->reserve;
    my $listener = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => $upstream_port,
        Type => SOCK_STREAM, ReuseAddr => 1, Listen => SOMAXCONN) or die "cannot listen: $@\n";
    $listener->blocking(0);
    return { port => $port, upstream_port => $upstream_port, listener => $listener,
        upstreams => {} };
}

sub close_place {
    my ($class, $place) = @_;
    close $place->{listener};
    RProxy::Ports->release($place->{upstream_port});
    return;
}

# Holds each conversation once in each lane, a lane being a list of places, in the first place that
# is free there. quiet: seconds without any movement that count as a stall. Returns for each
# conversation a list of [place, result], one of each lane.
sub run {
    my ($class, $lanes, $conversations, $quiet) = @_;
    my $self = bless { quiet => $quiet, results => [], watched => {} }, $class;
    my @lanes = map { { number => $_, free => [@{ $lanes->[$_] }], next => 0 } } 0 .. $#$lanes;
    my @places = map { @$_ } @$lanes;
    for my $place (@places) {
        $self->{watched}{ fileno $place->{listener} } = [$self, 'accept_upstream', $place];
    }
    my $left = @$lanes * @$conversations;
    while ($left) {
        for my $lane (@lanes) {
            while (@{ $lane->{free} } && $lane->{next} < @$conversations) {
                my $place = shift @{ $lane->{free} };
                my $number = $lane->{next}++;
                $place->{lane} = $lane;
                $place->{into} = \$self->{results}[$number][$lane->{number}];
                $self->begin($place, $conversations->[$number]);
            }
        }
        $self->turn;
        for my $place (grep { $_->{talk} } @places) {
            next unless $self->is_over($place);
            push @{ $place->{lane}{free} }, $place;
            $left--;
        }
    }
    return @{ $self->{results} };
}

# ---- the loop -------------------------------------------------------------------------------

sub turn {
    my ($self) = @_;
    my ($read, $write) = ('', '');
    for my $fd (keys %{ $self->{watched} }) {
        my $stream = $self->{watched}{$fd}[3];
        vec($read, $fd, 1) = 1 unless $stream && defined $stream->{closed};
        vec($write, $fd, 1) = 1 if $stream && @{ $stream->{out} };
    }
    my $count = select $read, $write, undef, $self->{quiet} / 5;
    return if $count <= 0;
    for my $fd (keys %{ $self->{watched} }) {
        my ($readable, $writable) = (vec($read, $fd, 1), vec($write, $fd, 1));
        next unless $readable || $writable;
        my ($owner, $method, $place, $stream) = @{ $self->{watched}{$fd} // next };
        $place->{talk}{moved} = now() if $place->{talk};
        send_pieces($stream) if $writable;
        $self->$method($place, $stream) if $readable && $self->{watched}{$fd};
    }
    return;
}

# One write a turn, so that pieces have a chance to arrive one by one.
sub send_pieces {
    my ($stream) = @_;
    my $out = $stream->{out};
    my $piece = shift @$out // return;
    if (ref $piece) {
        $piece->();
        return;
    }
    my $wrote = syswrite $stream->{socket}, $piece;
    if (!defined $wrote) {
        return unshift @$out, $piece if $! == EAGAIN || $! == EINTR;
        @$out = ();
        return;
    }
    unshift @$out, substr $piece, $wrote if $wrote < length $piece;
    send_pieces($stream) if @$out && ref $out->[0];
    return;
}

# Reads what is there; false once the peer has gone.
sub receive {
    my ($stream) = @_;
    my $got = sysread $stream->{socket}, $stream->{in}, READ, length $stream->{in};
    return 1 if $got || (!defined $got && ($! == EAGAIN || $! == EINTR));
    $stream->{closed} = defined $got ? 'eof' : 'reset';
    return 0;
}

sub watch {
    my ($self, $method, $place, $stream) = @_;
    $stream->{socket}->blocking(0);
    $self->{watched}{ fileno $stream->{socket} } = [$self, $method, $place, $stream];
    return $stream;
}

sub drop {
    my ($self, $stream) = @_;
    delete $self->{watched}{ fileno $stream->{socket} };
    close $stream->{socket};
    return;
}

# ---- the client -----------------------------------------------------------------------------

sub begin {
    my ($self, $place, $conversation) = @_;
    socket my $socket, PF_INET, SOCK_STREAM, 0 or die "socket: $!\n";
    my $client = { socket => $socket, in => '', out => [@{ $conversation->{pieces} // [] }] };
    setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
    connect $socket, pack_sockaddr_in($place->{port}, INADDR_LOOPBACK)
        or die "connect: $!\n";
    my $player = $conversation->{player};
    $client->{player} = $player->new($conversation, $client->{out}) if $player;
    my $end = $player ? '' : $conversation->{end} // 'sentinel';
    push @{ $client->{out} }, SENTINEL if $end eq 'sentinel';
    push @{ $client->{out} }, sub { shutdown $socket, SHUT_WR } if $end eq 'half';
    push @{ $client->{out} }, sub {
        setsockopt $socket, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
        $client->{closed} = 'here';
    } if $end eq 'reset';
    $self->watch('read_client', $place, $client);
    $place->{talk} = { conversation => $conversation, client => $client,
        moved => now(), began => now(), stalled => 0, requests => [] };
    return;
}

sub read_client {
    my ($self, $place, $client) = @_;
    receive($client);
    if (my $player = $client->{player}) {
        $player->received(\$client->{in}, $client->{closed});
        $client->{closed} //= 'here' if $player->is_over;
    }
    return;
}

# Nothing moved for a while: the client ends its direction, and leaves if that does not help.
sub stall {
    my ($talk) = @_;
    my $client = $talk->{client};
    $talk->{stalled}++;
    $talk->{moved} = now();
    if ($client->{player}) {
        $client->{closed} //= 'stuck' if !$client->{player}->stalled;
        return;
    }
    if ($talk->{stalled} == 1) {
        shutdown $client->{socket}, SHUT_WR;
        return;
    }
    $client->{closed} //= 'stuck';
    return;
}

# Whether the place is free again: the client's connection has ended, and nothing is under way at
# the upstream.
sub is_over {
    my ($self, $place) = @_;
    my $talk = $place->{talk};
    my $quiet = now() - $talk->{moved} > $self->{quiet};
    if (!defined $talk->{client}{closed}) {
        stall($talk) if $quiet;
        return 0;
    }
    if ($talk->{client}{socket}) {
        $self->drop($talk->{client});
        delete $talk->{client}{socket};
    }
    my @busy = grep { $_->{request} || length $_->{in} || @{ $_->{out} } || $_->{tunnel} }
        values %{ $place->{upstreams} };
    return 0 if @busy && !$quiet;
    $_->{request} && ($_->{request}{closed} = 'left open') for @busy;
    $self->end_upstream($place, $_) for values %{ $place->{upstreams} };
    ${ $place->{into} } = [$place, {
        client => $talk->{client}{in}, closed => $talk->{client}{closed},
        stalled => $talk->{stalled}, requests => $talk->{requests},
        player => $talk->{client}{player},
    }];
    delete $place->{talk};
    return 1;
}

# ---- the upstream ---------------------------------------------------------------------------

sub accept_upstream {
    my ($self, $place) = @_;
    while (my $socket = $place->{listener}->accept) {
        setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
        my $upstream = { socket => $socket, in => '', out => [] };
        $place->{upstreams}{ 0 + $upstream } = $upstream;
        $self->watch('read_upstream', $place, $upstream);
    }
    return;
}

sub end_upstream {
    my ($self, $place, $upstream, $how) = @_;
    delete $place->{upstreams}{ 0 + $upstream } or return;
    setsockopt $upstream->{socket}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0
        if ($how // '') eq 'reset';
    $self->drop($upstream);
    return;
}

sub read_upstream {
    my ($self, $place, $upstream) = @_;
    my $open = receive($upstream);
    1 while $self->next_request($place, $upstream);
    if (!$open) {
        $upstream->{request}{closed} = $upstream->{closed} if $upstream->{request};
        $self->end_upstream($place, $upstream);
    }
    return;
}

# Goes on with the request that is coming in; true if something is done that may not be all.
sub next_request {
    my ($self, $place, $upstream) = @_;
    my $talk = $place->{talk};
    if ($upstream->{tunnel}) {
        return 0 if $upstream->{in} eq '';
        my $bytes = substr $upstream->{in}, 0, length $upstream->{in}, '';
        $upstream->{tunnel}{body} .= $bytes;
        push @{ $upstream->{out} }, $bytes;
        return 0 if index($upstream->{tunnel}{body}, TUNNEL_END) < 0;
        delete $upstream->{tunnel};
        push @{ $upstream->{out} }, sub { $self->end_upstream($place, $upstream) };
        return 0;
    }
    my $request = $upstream->{request};
    if (!$request) {
        $upstream->{in} =~ s/\A(.*?\r\n\r\n)//s or return 0;
        $request = $upstream->{request} = new_request($1);
        $self->begin_request($place, $upstream, $request) if $talk;
    }
    read_body($request, \$upstream->{in}) or return 0;
    $request->{whole} = 1;
    delete $upstream->{request};
    $self->answer($place, $upstream, $request) unless $request->{answered};
    return 1;
}

sub begin_request {
    my ($self, $place, $upstream, $request) = @_;
    my $talk = $place->{talk};
    $request->{number} = @{ $talk->{requests} };
    push @{ $talk->{requests} }, $request;
    push @{ $upstream->{out} }, CONTINUE
        if $talk->{conversation}{continue} && $request->{head} =~ /^Expect:/mi;
    $self->answer($place, $upstream, $request) if $self->answer_for($talk, $request)->{early};
    return;
}

sub new_request {
    my ($head) = @_;
    my $request = { head => $head, body => '', whole => 0, closed => '', left => 0, framing => '',
        number => 0 };
    if ($head =~ /^Transfer-Encoding:\s*chunked\r$/mi) {
        $request->{framing} = 'chunked';
    }
    elsif ($head =~ /^Content-Length:\s*(\d+)\r$/mi) {
        @$request{qw(framing left)} = ('length', $1);
    }
    return $request;
}

# True when the body is whole. Chunks are undone; a malformed one becomes a part of the body.
sub read_body {
    my ($request, $in) = @_;
    if ($request->{framing} ne 'chunked') {
        my $piece = substr $$in, 0, $request->{left}, '';
        $request->{left} -= length $piece;
        $request->{body} .= $piece;
        return !$request->{left};
    }
    while (1) {
        if ($request->{left}) {
            my $piece = substr $$in, 0, $request->{left}, '';
            $request->{left} -= length $piece;
            $request->{raw} .= $piece;
            return 0 if $request->{left};
            $request->{body} .= substr $request->{raw}, 0, -2;
            $request->{raw} = '';
        }
        if ($$in =~ s/\A([0-9a-f]+)\r\n//i) {
            my $size = hex $1;
            $request->{left} = $size ? $size + 2 : 0;
            $request->{last} = !$size;
            next if $size;
        }
        return 0 unless $request->{last};
        $$in =~ s/\A((?:[^\r\n]+\r\n)*)\r\n// or return 0;
        $request->{trailers} = $1;
        return 1;
    }
}

sub answer_for {
    my ($self, $talk, $request) = @_;
    my $head = $request->{head};
    return DEFAULT_ANSWER if $head =~ m{\A\S+ ${\SENTINEL_PATH}\b};
    my $number = $head =~ /^X-Stream: (\d+)\r$/mi ? $1 : $request->{number};
    return $talk->{conversation}{answers}[$number] // DEFAULT_ANSWER;
}

sub answer {
    my ($self, $place, $upstream, $request) = @_;
    my $talk = $place->{talk} // return;
    my $answer = $self->answer_for($talk, $request);
    my $bytes = $request->{head} =~ /\AHEAD / ? $answer->{head_only} // $answer->{bytes}
                                              : $answer->{bytes};
    my ($key) = $request->{head} =~ /^Sec-WebSocket-Key: *(\S+)\r$/mi;
    $bytes =~ s<\{ACCEPT\}><sha1_base64(($key // '') . WEBSOCKET_GUID) . '='>e;
    $bytes =~ s/\{PORT\}/$place->{upstream_port}/g;
    $request->{answered} = 1;
    push @{ $upstream->{out} }, $bytes if $bytes ne '';
    my $then = $answer->{then} // '';
    if ($then eq 'tunnel' && $request->{head} =~ /^Upgrade:/mi) {
        $upstream->{tunnel} = $request;
    }
    elsif ($then) {
        # The end comes with the last bytes: it doesn't depend on the time in between what the proxy
        # makes of the connection.
        setsockopt $upstream->{socket}, IPPROTO_TCP, TCP_CORK, 1 if $then eq 'close';
        push @{ $upstream->{out} }, sub { $self->end_upstream($place, $upstream, $then) };
        send_pieces($upstream) if $bytes eq '';
    }
    return;
}

1;
