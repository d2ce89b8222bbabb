# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# A headless Chromium with one page, steered over its debugging pipe: JSON with a NUL behind each
# message, on its descriptors 3 and 4. For t/browser only.
package RProxy::Browser;
use strict;
use warnings;
use Carp ();
use File::Temp ();
use IO::Select;
use JSON::PP ();
use MIME::Base64 ();
use POSIX ();

# The program's path; undef: there is none.
sub program {
    for my $name ($ENV{RPROXY_CHROMIUM} // (), 'chromium', 'chromium-browser', 'google-chrome') {
        for my $path ($name =~ m{/} ? $name : map { "$_/$name" } split /:/, $ENV{PATH}) {
            return $path if -x $path;
        }
    }
    return undef;
}

sub new {
    my ($class) = @_;
    my $program = program() // Carp::croak('no Chromium: run build-aux/install-deps browser');
    my $directory = File::Temp->newdir('rproxy-browser-XXXXXXXX', TMPDIR => 1);
    pipe my $its_in, my $out or die "pipe: $!\n";
    pipe my $in, my $its_out or die "pipe: $!\n";
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        setpgrp;
        _exec($program, $directory, $its_in, $its_out);
    }
    close $_ for $its_in, $its_out;
    binmode $_ for $in, $out;
    $out->autoflush(1);
    my $self = bless { pid => $pid, owner => $$, directory => $directory, in => $in, out => $out,
        text => '', id => 0, problems => [] }, $class;
    my $target = $self->call('Target.createTarget', url => 'about:blank')->{targetId};
    $self->{session} = $self->call('Target.attachToTarget', targetId => $target,
        flatten => JSON::PP::true())->{sessionId};
    $self->call("$_.enable") for qw(Page Runtime Log);
    return $self;
}

sub _exec {
    my ($program, $directory, $in, $out) = @_;
    # Copies first: each of them may be 3 or 4 itself.
    POSIX::dup2(fileno $in, 100);
    POSIX::dup2(fileno $out, 101);
    POSIX::dup2(100, 3);
    POSIX::dup2(101, 4);
    CORE::open STDERR, '>', "$directory/stderr";
    CORE::open STDOUT, '>&', \*STDERR;
    my @command = ($program, '--headless=new', '--no-sandbox', '--disable-gpu',
        '--disable-dev-shm-usage', '--disable-background-networking', '--disable-component-update',
        '--no-first-run', '--hide-scrollbars', "--user-data-dir=$directory/profile", '--remote-debugging-pipe',
        'about:blank');
    exec { $program } @command or POSIX::_exit(127);
}

# Calls a method of the protocol and returns its result.
sub call {
    my ($self, $method, %params) = @_;
    my $id = ++$self->{id};
    my %session = $self->{session} ? (sessionId => $self->{session}) : ();
    print { $self->{out} } JSON::PP->new->utf8->encode(
        { id => $id, method => $method, params => \%params, %session }), "\0";
    while (1) {
        my $message = $self->_read($method);
        if (($message->{id} // 0) == $id) {
            Carp::croak("$method: $message->{error}{message}") if $message->{error};
            return $message->{result};
        }
        $self->_note($message);
    }
}

sub _read {
    my ($self, $for) = @_;
    my $end = time + 60;
    my $length;
    while (($length = index $self->{text}, "\0") < 0) {
        my $left = $end - time;
        Carp::croak("the browser says nothing to $for") if $left <= 0
            || !IO::Select->new($self->{in})->can_read($left);
        sysread $self->{in}, $self->{text}, 65536, length $self->{text}
            or Carp::croak('the browser has ended');
    }
    my $message = substr $self->{text}, 0, $length + 1, '';
    chop $message;
    return JSON::PP->new->utf8->decode($message);
}

sub _note {
    my ($self, $message) = @_;
    my $params = $message->{params};
    my $method = $message->{method} // '';
    push @{ $self->{problems} }, $params->{exceptionDetails}{exception}{description}
        // $params->{exceptionDetails}{text} if $method eq 'Runtime.exceptionThrown';
    push @{ $self->{problems} }, "$params->{entry}{text} $params->{entry}{url}"
        if $method eq 'Log.entryAdded' && $params->{entry}{level} eq 'error';
    return;
}

# What went wrong in scripts and what the browser refused, since the last call.
sub problems { my ($self) = @_; return splice @{ $self->{problems} } }

# The value of an expression of JavaScript; a promise's when it has one.
sub value {
    my ($self, $expression) = @_;
    my $result = $self->call('Runtime.evaluate', expression => $expression,
        awaitPromise => JSON::PP::true(), returnByValue => JSON::PP::true());
    Carp::croak($result->{exceptionDetails}{exception}{description} // $expression)
        if $result->{exceptionDetails};
    return $result->{result}{value};
}

sub open {
    my ($self, $url) = @_;
    $self->call('Page.navigate', url => $url);
    $self->wait_for("location.href !== 'about:blank' && document.readyState === 'complete'");
    return;
}

# Waits until the expression is true.
sub wait_for {
    my ($self, $expression, $seconds) = @_;
    my $end = time + ($seconds // 30);
    while (1) {
        return if eval { $self->value("Boolean($expression)") };
        Carp::croak("not within time: $expression $@") if time > $end;
        select undef, undef, undef, 0.05;
    }
}

sub viewport {
    my ($self, $width, $height) = @_;
    $self->call('Emulation.setDeviceMetricsOverride', width => $width, height => $height,
        deviceScaleFactor => 1, mobile => JSON::PP::false());
    return;
}

# 'light' or 'dark'
sub colours {
    my ($self, $scheme) = @_;
    $self->call('Emulation.setEmulatedMedia', features => [
        { name => 'prefers-color-scheme', value => $scheme },
        { name => 'prefers-reduced-motion', value => 'reduce' }]);
    return;
}

sub type { my ($self, $text) = @_; $self->call('Input.insertText', text => $text); return }

# Presses keys: Tab, Enter, Escape.
sub press {
    my ($self, @keys) = @_;
    my %code = (Tab => 9, Enter => 13, Escape => 27);
    for my $key (@keys) {
        my %all = (key => $key, code => $key, windowsVirtualKeyCode => $code{$key});
        $self->call('Input.dispatchKeyEvent', type => 'keyDown', %all,
            $key eq 'Enter' ? (text => "\r") : ());
        $self->call('Input.dispatchKeyEvent', type => 'keyUp', %all);
    }
    return;
}

# Writes what is to be seen, or all of the page, as PNG.
sub screenshot {
    my ($self, $file) = @_;
    my $data = $self->call('Page.captureScreenshot', format => 'png',
        optimizeForSpeed => JSON::PP::false())->{data};
    CORE::open my $fh, '>:raw', $file or Carp::croak("$file: $!");
    print $fh MIME::Base64::decode($data);
    close $fh or Carp::croak("$file: $!");
    return;
}

sub DESTROY {
    my ($self) = @_;
    return if $self->{owner} != $$;
    local ($?, $!);
    close $_ for @$self{qw(in out)};
    kill KILL => -$self->{pid};
    waitpid $self->{pid}, 0;
    return;
}

1;
